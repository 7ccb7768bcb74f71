"""`nightshift status`."""

from typing import Annotated, Any

import typer

from producer.cli.answers import JsonOption, print_json
from producer.cli.session import Session, open_session
from producer.questions.outlook import outlook
from producer.questions.queries import BatchSummary, failures, find_batch
from schemas.printable import printable

app = typer.Typer()

_SHOWN_FAILURES = 10

BatchArgument = Annotated[str | None, typer.Argument(help="Number or name of a batch; else the whole farm.")]


@app.command(epilog="Example: nightshift status 3")
def status(batch: BatchArgument = None, as_json: JsonOption = False) -> None:
    """Show the night so far: images, failures, batches, workers. Exit code 1 when a job of the named batch failed."""
    with open_session() as session:
        if batch is None:
            from producer.cli.tonight import show_tonight  # noqa: PLC0415  rich draws its table

            show_tonight(session, as_json)
            return
        summary = find_batch(session.database, batch)
        show_batch(session, summary, as_json)
    raise typer.Exit(1 if summary.num_failed else 0)


def show_batch(session: Session, summary: BatchSummary, as_json: bool) -> None:
    """One batch with the reasons of its failures, and what it waits for."""
    if as_json:
        print_json(batch_as_json(session, summary))
        return
    print(_sentence(summary))
    ahead = outlook(session.database, summary, session.settings)
    for sentence in filter(None, (ahead.waits, ahead.late)):
        print(f"  {sentence}")
    for reason, num in failures(session.database, summary.id, _SHOWN_FAILURES):
        print(f"  {num:,} failed: {printable(reason)}")


def batch_as_json(session: Session, summary: BatchSummary) -> dict[str, Any]:
    ahead = outlook(session.database, summary, session.settings)
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
