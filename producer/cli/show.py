"""`nightshift status` and `nightshift watch`."""

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from farm.database import Database
from producer.cli.session import JsonOption, Session, open_session, print_json
from producer.cli.tonight import show_tonight
from producer.following import follow
from producer.outlook import outlook
from producer.progress import show_progress
from producer.queries import BatchSummary, batch_summaries, failures, find_batch, going_on
from schemas.errors import NotFoundError
from schemas.printable import printable

app = typer.Typer()

_SHOWN_FAILURES = 10

BatchArgument = Annotated[str | None, typer.Argument(help="Number or name of a batch; else the whole farm.")]
WatchedArgument = Annotated[
    list[str] | None, typer.Argument(metavar="BATCH", help="Numbers or names; else all that have not ended.")
]


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


@app.command(epilog="Example: nightshift watch 3 cats")
def watch(batches: WatchedArgument = None, as_json: JsonOption = False) -> None:
    """Follow batches until they have ended: images a second, time left, failures. Exit code 1 when a job failed."""
    with open_session() as session:
        try:
            batch_ids = _watched(session.database, batches or ())
            summaries = show_progress(follow(session.database, batch_ids, session.settings))
        except KeyboardInterrupt:
            print("no longer watching; the farm goes on", file=sys.stderr)
            raise typer.Exit(130) from None
        if as_json:
            print_json({"batches": [_as_json(session, summary) for summary in summaries]})
        else:
            for summary in summaries:
                show_batch(session, summary, as_json=False)
    raise typer.Exit(1 if any(summary.num_failed for summary in summaries) else 0)


def _watched(database: Database, batches: Sequence[str]) -> list[int]:
    """Those that are named; else all that have not ended; else the youngest."""
    if batches:
        return list(dict.fromkeys(find_batch(database, batch).id for batch in batches))
    batch_ids = going_on(database) or [batch.id for batch in batch_summaries(database, 1)]
    if not batch_ids:
        raise NotFoundError("there is no batch to watch yet; `nightshift submit` makes one")
    return list(batch_ids)


def show_batch(session: Session, summary: BatchSummary, as_json: bool) -> None:
    """One batch with the reasons of its failures, and what it waits for."""
    if as_json:
        print_json(_as_json(session, summary))
        return
    print(_sentence(summary))
    ahead = outlook(session.database, summary, session.settings.window)
    for sentence in filter(None, (ahead.waits, ahead.late)):
        print(f"  {sentence}")
    for reason, num in failures(session.database, summary.id, _SHOWN_FAILURES):
        print(f"  {num} failed: {printable(reason)}")


def _as_json(session: Session, summary: BatchSummary) -> dict[str, Any]:
    ahead = outlook(session.database, summary, session.settings.window)
    reasons = failures(session.database, summary.id, _SHOWN_FAILURES)
    named = [{"reason": reason, "num_jobs": num} for reason, num in reasons]
    return {**summary.as_json(), **ahead.as_json(), "failures": named}


def _sentence(batch: BatchSummary) -> str:
    """Such as ``batch 3 (cats, pair tiny): 20 of 24 done, 4 failed``. What is zero is left out."""
    counts = {
        "pending": batch.num_pending,
        "queued": batch.num_queued,
        "running": batch.num_running,
        "failed": batch.num_failed,
        "canceled": batch.num_canceled,
    }
    others = (f"{num:,} {state}" for state, num in counts.items() if num)
    parts = [f"{batch.num_done:,} of {batch.num_jobs:,} done", *others]
    return f"batch {batch.id} ({printable(batch.name)}, pair {batch.pair}): {', '.join(parts)}"
