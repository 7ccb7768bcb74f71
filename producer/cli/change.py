"""`nightshift cancel` and `nightshift retry`."""

from typing import Annotated

import typer

from farm import ledger
from farm.database import Database
from producer import changes
from producer.cli.answers import JsonOption, print_json, so_many
from producer.cli.session import open_session
from producer.questions.queries import BatchSummary, batch_summary, find_batch
from schemas.errors import NotFoundError
from schemas.states import BatchState

app = typer.Typer()

BatchArgument = Annotated[str, typer.Argument(help="Number or name of a batch.")]


NowOption = Annotated[bool, typer.Option("--now", help="Stop what renders, too, within a third of a lease.")]


@app.command(epilog="Example: nightshift cancel 3")
def cancel(batch: BatchArgument, now: NowOption = False, as_json: JsonOption = False) -> None:
    """Cancel what is left of a batch: what waits at once; what renders is finished, unless --now. Images stay."""
    with open_session() as session:
        found = find_batch(session.database, batch)
        summary = changes.cancel(session.database, found, now=now)
        if as_json:
            print_json(summary.as_json() if summary else {**found.as_json(), "state": "discarded"})
        elif found.ended:
            print(f"batch {found.id} has ended; there is nothing left to cancel")
        elif summary:
            running = f"; {so_many(summary.num_running, 'job')} {'stopping' if now else 'being finished'}"
            running = running if summary.num_running else ""
            waiting = summary.num_pending + summary.num_queued
            marked = f"; of them the dispatcher has {waiting:,} to mark" if waiting else ""
            canceled = so_many(summary.num_canceled + waiting, "job")
            print(f"batch {summary.id}: {canceled} canceled{marked}, {summary.num_done:,} done{running}")
        else:
            print(f"batch {found.id} was never opened; it is discarded with its {_discarded(session.database, found)}")


def _discarded(database: Database, found: BatchSummary) -> str:
    jobs = so_many(found.num_jobs, "job")
    try:
        left = batch_summary(database, found.id).num_jobs
    except NotFoundError:
        return jobs
    return f"{jobs}; of them the dispatcher has {left:,} to remove"


@app.command(epilog="Example: nightshift retry 3")
def retry(batch: BatchArgument, as_json: JsonOption = False) -> None:
    """Give the failed jobs of a batch another try, with all attempts anew."""
    with open_session() as session:
        summary = find_batch(session.database, batch)
        num_jobs = ledger.retry_failed(session.database, summary.id)
        if as_json:
            print_json({"batch_id": summary.id, "num_retried": num_jobs})
        else:
            said = f"{so_many(num_jobs, 'job')} pending again" if num_jobs else "no job failed"
            waits = f"; it is paused, and `nightshift resume {summary.id}` goes on"
            print(f"batch {summary.id}: {said}{waits if num_jobs and summary.state == BatchState.PAUSED else ''}")
