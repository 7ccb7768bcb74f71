"""How the progress of batches is shown to people: a bar for each on a terminal, lines elsewhere, failures as they come.

Prints on stderr.
"""

import sys
import time
from collections.abc import Callable, Iterator
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskID
from rich.text import Text

from producer.questions.following import Moment, Sight
from producer.questions.queries import BatchSummary
from schemas.printable import printable_start

_PLAIN_SECONDS: Final = 10.0
_SHOWN_FAILURES: Final = 100
_REASON_CHARACTERS: Final = 300
_NAME_CHARACTERS: Final = 30

Say = Callable[[str], None]


def show_progress(moments: Iterator[Moment]) -> list[BatchSummary]:
    """Draws bars on a terminal, or writes lines every ten seconds on any other. Returns the last summaries."""
    console = Console(stderr=True)
    draws = console.is_terminal and not console.is_dumb_terminal
    return _bars(moments, console) if draws else _lines(moments)


def _bars(moments: Iterator[Moment], console: Console) -> list[BatchSummary]:
    columns = (_TextColumn("name"), BarColumn(bar_width=20), MofNCompleteColumn(), _TextColumn("status"))
    last: Moment | None = None
    with Progress(*columns, console=console) as progress:
        failures = _Failures(lambda line: progress.console.print(Text(line)))
        tasks = dict[int, TaskID]()
        for last in moments:
            failures.say(last)
            for sight in last.sights:
                _update(progress, tasks, sight)
    return _summaries(last)


def _update(progress: Progress, tasks: dict[int, TaskID], sight: Sight) -> None:
    batch, status = sight.batch, status_line(sight)
    if batch.id not in tasks:
        tasks[batch.id] = progress.add_task("", total=None, name=_named(batch), status=status)
    progress.update(tasks[batch.id], total=batch.num_jobs, completed=batch.num_ended, status=status)


class _TextColumn(ProgressColumn):
    """A field of the task as it is: names come from outside, and are no markup."""

    def __init__(self, field: str) -> None:
        super().__init__()
        self._field = field

    def render(self, task: Task) -> Text:
        return Text(task.fields[self._field])


def _lines(moments: Iterator[Moment]) -> list[BatchSummary]:
    failures, said, next_lines = _Failures(_say), dict[int, str](), 0.0
    last: Moment | None = None
    for last in moments:
        failures.say(last)
        is_time = time.monotonic() >= next_lines
        for sight in last.sights:
            if is_time or sight.batch.ended:
                _say_once(said, sight)
        if is_time:
            next_lines = time.monotonic() + _PLAIN_SECONDS
    return _summaries(last)


def _say_once(said: dict[int, str], sight: Sight) -> None:
    """A batch that stands still says nothing new."""
    batch = sight.batch
    line = f"{_named(batch)}: {batch.num_ended:,}/{batch.num_jobs:,} {status_line(sight)}".rstrip()
    if said.get(batch.id) != line:
        said[batch.id] = line
        _say(line)


def _named(batch: BatchSummary) -> str:
    return f"batch {batch.id} ({printable_start(batch.name, _NAME_CHARACTERS)})"


def _summaries(last: Moment | None) -> list[BatchSummary]:
    return [sight.batch for sight in last.sights] if last else []


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class _Failures:
    """Says each failure once, and of many no more than the first hundred."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._num_said = 0
        self._is_first = True

    def say(self, moment: Moment) -> None:
        if self._is_first:
            self._is_first = False
            for batch in (sight.batch for sight in moment.sights if sight.batch.num_failed):
                num = f"{batch.num_failed:,} job{'' if batch.num_failed == 1 else 's'} of batch {batch.id}"
                self._say(f"{num} failed already; {_listed(batch.id)}")
        for failed in moment.failures[: _SHOWN_FAILURES - self._num_said]:
            reason = printable_start(failed.reason, _REASON_CHARACTERS)
            self._say(f"job {failed.batch_id}/{failed.number} failed: {reason}")
            self._num_said += 1
            if self._num_said == _SHOWN_FAILURES:
                self._say(f"more failures are only counted; {_listed(failed.batch_id)}")


def _listed(batch_id: int) -> str:
    return f"`nightshift failures {batch_id}` lists them"


def status_line(sight: Sight) -> str:
    """Such as ``1.93 images/s, 0:06 left, 2 failed``."""
    batch, parts = sight.batch, []
    if sight.images_per_second and not batch.ended:
        parts.append(f"{sight.images_per_second:.2f} images/s")
        if sight.outlook.waits:
            parts.append(sight.outlook.waits)
        elif sight.seconds_left is not None:
            parts.append(f"{duration(sight.seconds_left)} left")
    elif not batch.ended:
        parts += _why_nothing_ends(sight)
    if sight.outlook.late:
        parts.append(sight.outlook.late)
    if batch.num_failed:
        parts.append(f"{batch.num_failed:,} failed")
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
