"""`nightshift status` and `nightshift watch`."""

import sys
from typing import Annotated

import typer

from farm.database import Database
from producer.cli.session import JsonOption, Session, open_session, print_json
from producer.cli.tonight import show_tonight
from producer.outlook import outlook
from producer.progress import follow, show_progress
from producer.queries import BatchSummary, batch_summaries, failures, find_batch
from schemas.errors import NotFoundError
from schemas.printable import printable

app = typer.Typer()

_SHOWN_FAILURES = 10

BatchArgument = Annotated[str | None, typer.Argument(help="Number or name of a batch; else the whole farm.")]


@app.command(epilog="Example: nightshift status 3")
def status(batch: BatchArgument = None, as_json: JsonOption = False) -> None:
    """Show the night so far: images, failures, batches, workers. Exit code 1 when a job of the named batch failed."""
    with open_session() as session:
        if batch is None:
            show_tonight(session, as_json)
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
        print_json({**summary.as_json(), **ahead.as_json(), "failures": reasons_as_json})
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
