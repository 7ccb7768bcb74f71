"""Following a batch: its counters, again and again, and a bar for people."""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn
from rich.text import Text

from farm.database import Database
from producer.queries import BatchSummary, batch_summary

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


def follow(database: Database, batch_id: int, tend: Callable[[], None] = lambda: None) -> Iterator[BatchSummary]:
    """The batch's counters twice a second, until it has ended. ``tend`` is called each time."""
    while True:
        summary = batch_summary(database, str(batch_id))
        yield summary
        if summary.ended:
            return
        tend()
        time.sleep(_POLL_SECONDS)


def show_progress(summaries: Iterator[BatchSummary]) -> BatchSummary:
    """Draws a bar on a terminal's stderr, or a line every ten seconds on any other. Returns the last summary."""
    console = Console(stderr=True)
    return _bar(summaries, console) if console.is_terminal else _lines(summaries)


def _bar(summaries: Iterator[BatchSummary], console: Console) -> BatchSummary:
    rate = Rate()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _StatusColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("rendering", total=None, status="")
        for summary in summaries:
            rate.note(time.monotonic(), summary.num_ended)
            progress.update(
                task, total=summary.num_jobs, completed=summary.num_ended, status=status_line(summary, rate)
            )
    return summary


class _StatusColumn(TextColumn):
    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task) -> Text:
        return Text(task.fields["status"])


def _lines(summaries: Iterator[BatchSummary]) -> BatchSummary:
    rate, next_line = Rate(), 0.0
    for summary in summaries:
        now = time.monotonic()
        rate.note(now, summary.num_ended)
        if now >= next_line or summary.ended:
            line = f"rendering {summary.num_ended}/{summary.num_jobs} {status_line(summary, rate)}"
            print(line.rstrip(), file=sys.stderr, flush=True)
            next_line = now + _PLAIN_SECONDS
    return summary


def status_line(summary: BatchSummary, rate: Rate) -> str:
    """Such as ``1.93 images/s, 0:06 left, 2 failed``."""
    parts = []
    if rate.per_second:
        parts.append(f"{rate.per_second:.2f} images/s")
        if not summary.ended:
            parts.append(f"{duration((summary.num_jobs - summary.num_ended) / rate.per_second)} left")
    elif not summary.num_ended:
        parts.append("waiting for the first image (a worker is loading)")
    if summary.num_failed:
        parts.append(f"{summary.num_failed} failed")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """``6`` → ``0:06``, ``3700`` → ``1:01:40``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
