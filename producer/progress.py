"""Following a batch: its counters and its workers, again and again, and a bar for people."""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn
from rich.text import Text

from farm.database import Database
from farm.workers import live_workers
from producer.outlook import GOES_ON, Outlook, outlook
from producer.queries import BatchSummary, batch_summary
from schemas.errors import UnavailableError
from schemas.settings import Settings

_POLL_SECONDS: Final = 0.5
_RATE_SECONDS: Final = 60.0
_PLAIN_SECONDS: Final = 10.0


class Rate:
    """Images a second over the last minute. The clock starts when the first images are there: loading and the first
    pack's own time are not counted, nor its images."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()
        self._at_first: int | None = None

    def note(self, at_seconds: float, num_ended: int) -> None:
        if self._at_first is None:
            self._at_first = num_ended
        if num_ended == self._at_first:
            return
        self._seen.append((at_seconds, num_ended))
        while at_seconds - self._seen[0][0] > _RATE_SECONDS and len(self._seen) > 2:
            self._seen.popleft()

    @property
    def per_second(self) -> float | None:
        """None before two samples differ."""
        if not self._seen or self._seen[0][1] == self._seen[-1][1]:
            return None
        (began, first), (ended, last) = self._seen[0], self._seen[-1]
        return (last - first) / (ended - began)


@dataclass(frozen=True)
class Sight:
    """A batch at one moment, and the live workers of its pair. ``tended``: whoever looks starts workers itself."""

    batch: BatchSummary
    num_workers: int
    tended: bool = False
    outlook: Outlook = GOES_ON


def follow(
    database: Database, batch_id: int, settings: Settings, tend: Callable[[], None] | None = None
) -> Iterator[Sight]:
    """The batch twice a second, until it has ended. ``tend`` is called each time; what it raises ends the following.

    While the ledger does not answer, nothing is yielded; that is said on stderr, once.
    """
    answers = True
    while True:
        try:
            batch = batch_summary(database, batch_id)
            workers = live_workers(database, settings.lease_seconds)
            ahead = outlook(database, batch, settings.window)
        except UnavailableError as error:
            if answers:
                print(f"{error}; trying again", file=sys.stderr, flush=True)
            answers = False
        else:
            answers = True
            yield Sight(batch, workers.get(batch.pair, 0), tend is not None, ahead)
            if batch.ended:
                return
            if tend is not None:
                tend()
        time.sleep(_POLL_SECONDS)


def show_progress(sights: Iterator[Sight]) -> BatchSummary:
    """Draws a bar on a terminal's stderr, or a line every ten seconds on any other. Returns the last summary."""
    console = Console(stderr=True)
    return _bar(sights, console) if console.is_terminal else _lines(sights)


def _bar(sights: Iterator[Sight], console: Console) -> BatchSummary:
    rate = Rate()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _StatusColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("rendering", total=None, status="")
        for sight in sights:
            batch = sight.batch
            rate.note(time.monotonic(), batch.num_ended)
            progress.update(task, total=batch.num_jobs, completed=batch.num_ended, status=status_line(sight, rate))
    return batch


class _StatusColumn(TextColumn):
    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task) -> Text:
        return Text(task.fields["status"])


def _lines(sights: Iterator[Sight]) -> BatchSummary:
    rate, next_line = Rate(), 0.0
    for sight in sights:
        batch, now = sight.batch, time.monotonic()
        rate.note(now, batch.num_ended)
        if now >= next_line or batch.ended:
            line = f"rendering {batch.num_ended}/{batch.num_jobs} {status_line(sight, rate)}"
            print(line.rstrip(), file=sys.stderr, flush=True)
            next_line = now + _PLAIN_SECONDS
    return batch


def status_line(sight: Sight, rate: Rate) -> str:
    """Such as ``1.93 images/s, 0:06 left, 2 failed``."""
    batch, parts = sight.batch, []
    if rate.per_second:
        parts.append(f"{rate.per_second:.2f} images/s")
        if not batch.ended:
            parts.append(f"{duration((batch.num_jobs - batch.num_ended) / rate.per_second)} left")
    elif not batch.ended:
        parts += _why_nothing_ends(sight)
    if sight.outlook.late:
        parts.append(sight.outlook.late)
    if batch.num_failed:
        parts.append(f"{batch.num_failed} failed")
    return ", ".join(parts)


def _why_nothing_ends(sight: Sight) -> list[str]:
    if sight.outlook.waits:
        return [sight.outlook.waits]
    if not sight.tended and not sight.num_workers:
        return [nobody_serves(sight.batch.pair)]
    if sight.batch.num_ended:
        return []
    # Whoever starts the workers itself does not see them before they have registered: they are starting until then.
    return [f"waiting for the first image (a worker is {'starting' if sight.tended else 'loading'})"]


def nobody_serves(pair: str) -> str:
    """What to do about a pair that has work and no worker."""
    return f"nobody serves pair {pair}: start `nightshift worker --pair {pair}`, or `nightshift up`"


def duration(seconds: float) -> str:
    """``6`` → ``0:06``, ``3700`` → ``1:01:40``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
