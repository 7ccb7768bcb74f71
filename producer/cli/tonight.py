"""What `nightshift status` says without a batch, in 80 columns."""

import textwrap
from collections.abc import Iterator
from datetime import datetime
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from farm.leases import ledger_time
from producer.cli.answers import print_json
from producer.cli.session import Session
from producer.questions.night import Night, night, standings
from producer.questions.outlook import Outlook, time_in_zone_of
from producer.questions.progress import nobody_serves
from producer.questions.queries import BatchSummary
from schemas.printable import printable, printable_start

_COLUMNS: Final = 80
_NAME_COLUMNS: Final = 24
_PAIR_COLUMNS: Final = 14
_NAME_CHARACTERS: Final = 60
_REASON_CHARACTERS: Final = 200


def show_tonight(session: Session, as_json: bool) -> None:
    """The night so far: images, failures, batches, workers."""
    window = session.settings.window
    tonight = night(session.database, session.settings, ledger_time(session.database))
    if as_json:
        print_json(tonight.as_json())
        return
    if not tonight.batches:
        print("no batches yet; `nightshift submit MANIFEST` makes one")
        return
    _print(_sums(tonight, window))
    Console(width=_COLUMNS).print(_table(tonight, window))
    _print(_batch_lines(tonight, window))
    _print(_worker_lines(tonight, window))


def _print(lines: Iterator[str]) -> None:
    for line in lines:
        indent = "  " if line.startswith(" ") else ""
        filled = textwrap.TextWrapper(
            _COLUMNS, initial_indent=indent, subsequent_indent=f"{indent}  ", break_on_hyphens=False
        )
        print(filled.fill(line.strip()))


def _sums(tonight: Night, window: str) -> Iterator[str]:
    rendered, failed = tonight.rendered, tonight.failed
    parts = [f"{rendered.num_images:,} images rendered"]
    if rendered.images_per_second is not None:
        parts.append(f"{rendered.images_per_second:.2f} images/s in the last 10 minutes")
    if failed.num_jobs:
        parts.append(f"{failed.num_jobs:,} failed")
    yield f"since {time_in_zone_of(window, tonight.since)}: {', '.join(parts)}"
    for reason, num in failed.reasons:
        yield f"  {num:,} failed: {printable_start(reason, _REASON_CHARACTERS)}"
    if rest := failed.num_jobs - sum(num for _, num in failed.reasons):
        yield f"  {rest:,} failed for other reasons; `nightshift failures BATCH` lists them"


def _table(tonight: Night, window: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("batch", justify="right", no_wrap=True)
    table.add_column("name", overflow="fold", max_width=_NAME_COLUMNS)
    table.add_column("pair", overflow="fold", max_width=_PAIR_COLUMNS)
    for heading in ("state", "done", "failed", "ends"):
        table.add_column(heading, justify="right" if heading in ("done", "failed") else "left", no_wrap=True)
    for batch, ahead in tonight.batches:
        done = f"{_share(batch)} of {batch.num_jobs:,}"
        ends = _soon(ahead.ends, tonight, window) if ahead.ends else ""
        names = (Text(printable_start(batch.name, _NAME_CHARACTERS)), Text(printable(batch.pair)))
        table.add_row(str(batch.id), *names, batch.shown_state, done, f"{batch.num_failed:,}", ends)
    return table


def _share(batch: BatchSummary) -> str:
    """Rounded down: 100 % is all of it."""
    return f"{100 * batch.num_done // batch.num_jobs} %" if batch.num_jobs else "0 %"


def _soon(instant: datetime, tonight: Night, window: str) -> str:
    """``Sun 05:40``; the date, where that is more than a few days away."""
    day, date, clock, *_ = time_in_zone_of(window, instant).split()
    return f"{day} {clock}" if (instant - tonight.since).days < 5 else date


def _batch_lines(tonight: Night, window: str) -> Iterator[str]:
    for batch, ahead in tonight.batches:
        if said := "; ".join(_particulars(batch, ahead, window)):
            yield f"batch {batch.id}: {said}"
    if tonight.num_more_batches:
        yield f"{tonight.num_more_batches:,} older batches are not shown; `nightshift status BATCH` shows one"


def _particulars(batch: BatchSummary, ahead: Outlook, window: str) -> Iterator[str]:
    if batch.ended:
        return
    if batch.window:
        yield f"window {printable(batch.window)}"
    yield from filter(None, (ahead.waits, ahead.late))
    if batch.deadline is not None and ahead.late is None:
        yield f"deadline {time_in_zone_of(batch.window or window, batch.deadline)}"


def _worker_lines(tonight: Night, window: str) -> Iterator[str]:
    live = ", ".join(f"{num} × {pair}" for pair, num in sorted(tonight.live_workers.items())) or "none"
    others = [f"{num} {name}" for name, num in standings(tonight.workers).items() if num and name != "live"]
    yield f"live workers: {'; '.join([live, *others])}"
    for worker in tonight.workers:
        if worker.standing != "live":
            seat = f"{worker.device} of {worker.host}, pair {worker.pair}"
            said = f": {printable_start(worker.error, _REASON_CHARACTERS)}" if worker.error else ""
            yield f"  {worker.standing} since {time_in_zone_of(window, worker.seen_at)}: {printable(seat)}{said}"
    for pair in tonight.unserved_pairs:
        yield nobody_serves(pair)
