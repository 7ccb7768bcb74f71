"""`nightshift status` and `nightshift watch`."""

import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from farm.database import Database
from farm.workers import live_workers
from producer.cli.session import JsonOption, Session, open_session, print_json
from producer.outlook import outlook
from producer.progress import follow, nobody_serves, show_progress
from producer.queries import BatchSummary, batch_summaries, failures, find_batch, waiting_pairs
from schemas.errors import NotFoundError
from schemas.printable import printable

app = typer.Typer()

_SHOWN_BATCHES = 20
_SHOWN_FAILURES = 10

BatchArgument = Annotated[str | None, typer.Argument(help="Number or name of a batch; else the youngest ones.")]


@app.command(epilog="Example: nightshift status 3")
def status(batch: BatchArgument = None, as_json: JsonOption = False) -> None:
    """Show batches and how far they are. Exit code 1 when a job of the named batch failed."""
    with open_session() as session:
        if batch is None:
            _show_all(session, as_json)
            return
        summary = find_batch(session.database, batch)
        show_batch(session, summary, as_json)
    raise typer.Exit(1 if summary.num_failed else 0)


@app.command(epilog="Example: nightshift watch 3")
def watch(batch: BatchArgument = None, as_json: JsonOption = False) -> None:
    """Follow a batch (else the youngest) until it has ended. Exit code 1 when a job of it failed."""
    with open_session() as session:
        try:
            watched = _watched(session.database, batch)
            summary = show_progress(follow(session.database, watched.id, session.settings))
        except KeyboardInterrupt:
            print("no longer watching; the batch goes on", file=sys.stderr)
            raise typer.Exit(130) from None
        show_batch(session, summary, as_json)
    raise typer.Exit(1 if summary.num_failed else 0)


def show_batch(session: Session, summary: BatchSummary, as_json: bool) -> None:
    """One batch with the reasons of its failures, and what it waits for."""
    reasons = failures(session.database, summary.id, _SHOWN_FAILURES)
    ahead = outlook(session.database, summary, session.settings.window)
    if as_json:
        reasons_as_json = [{"reason": reason, "num_jobs": num} for reason, num in reasons]
        print_json({**summary.as_json(), **vars(ahead), "failures": reasons_as_json})
        return
    print(_sentence(summary))
    for sentence in filter(None, (ahead.waits, ahead.late)):
        print(f"  {sentence}")
    for reason, num in reasons:
        print(f"  {num} failed: {printable(reason)}")


def _watched(database: Database, batch: str | None) -> BatchSummary:
    if batch is not None:
        return find_batch(database, batch)
    youngest = batch_summaries(database, 1)
    if not youngest:
        raise NotFoundError("there is no batch to watch yet; `nightshift submit` makes one")
    return youngest[0]


def _show_all(session: Session, as_json: bool) -> None:
    summaries = batch_summaries(session.database, _SHOWN_BATCHES)
    workers = live_workers(session.database, session.settings.lease_seconds)
    unserved = sorted(waiting_pairs(session.database) - workers.keys())
    if as_json:
        batches: list[Any] = [summary.as_json() for summary in summaries]
        print_json({"batches": batches, "live_workers": workers, "unserved_pairs": unserved})
        return
    if not summaries:
        print("no batches yet; `nightshift submit MANIFEST` makes one")
        return
    Console().print(_table(summaries))
    for summary in summaries:
        if ahead := str(outlook(session.database, summary, session.settings.window)):
            print(f"batch {summary.id}: {ahead}")
    print("live workers: " + (", ".join(f"{num} × {pair}" for pair, num in sorted(workers.items())) or "none"))
    for pair in unserved:
        print(nobody_serves(pair))


def _table(summaries: list[BatchSummary]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("batch", "name", "pair", "state"):
        table.add_column(heading, overflow="fold")
    for heading in ("prio", "jobs", "waiting", "running", "done", "failed", "canceled"):
        table.add_column(heading, justify="right", no_wrap=True)
    for batch in summaries:
        counts = (batch.num_running, batch.num_done, batch.num_failed, batch.num_canceled)
        numbers = (batch.priority, batch.num_jobs, batch.num_pending + batch.num_queued, *counts)
        state = "ended" if batch.ended and batch.state == "open" else batch.state
        table.add_row(str(batch.id), Text(printable(batch.name)), batch.pair, state, *map(str, numbers))
    return table


def _sentence(batch: BatchSummary) -> str:
    """Such as ``batch 3 (cats, pair tiny): 20 of 24 done, 4 failed``. What is zero is left out."""
    counts = {
        "pending": batch.num_pending,
        "queued": batch.num_queued,
        "running": batch.num_running,
        "failed": batch.num_failed,
        "canceled": batch.num_canceled,
    }
    parts = [f"{batch.num_done} of {batch.num_jobs} done", *(f"{num} {state}" for state, num in counts.items() if num)]
    return f"batch {batch.id} ({printable(batch.name)}, pair {batch.pair}): {', '.join(parts)}"
