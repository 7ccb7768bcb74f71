"""`nightshift cancel` and `nightshift retry`."""

from typing import Annotated

import typer

from farm import batches, ledger
from farm.database import Database
from producer.cli.session import JsonOption, open_session, print_json
from producer.queries import BatchSummary, batch_summary, find_batch
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
        summary = _canceled(session.database, found, now)
        if as_json:
            print_json(summary.as_json() if summary else {**found.as_json(), "state": "discarded"})
        elif summary:
            running = f"; {summary.num_running} are {'stopping' if now else 'being finished'}"
            running = running if summary.num_running else ""
            print(f"batch {summary.id}: {summary.num_canceled} jobs canceled, {summary.num_done} done{running}")
        else:
            print(f"batch {found.id} was never opened; it is discarded with its {found.num_jobs} jobs")


def _canceled(database: Database, batch: BatchSummary, now: bool) -> BatchSummary | None:
    """The batch afterwards; None where it was one that a killed submit left behind, and is gone now."""
    if batch.state == BatchState.STAGING:
        batches.discard_batch(database, batch.id)
        try:
            batch = batch_summary(database, batch.id)  # its submit was alive, and has opened it meanwhile
        except NotFoundError:
            return None
    if batch.state in (BatchState.OPEN, BatchState.PAUSED):
        batches.cancel_batch(database, batch.id)
    if now:
        batches.stop_running(database, batch.id)
    while ledger.sweep_canceled(database, batch.id):
        pass
    return batch_summary(database, batch.id)


@app.command(epilog="Example: nightshift retry 3")
def retry(batch: BatchArgument, as_json: JsonOption = False) -> None:
    """Give the failed jobs of a batch another try, with all attempts anew."""
    with open_session() as session:
        summary = find_batch(session.database, batch)
        num_jobs = ledger.retry_failed(session.database, summary.id)
        if as_json:
            print_json({"batch_id": summary.id, "num_retried": num_jobs})
        else:
            print(f"batch {summary.id}: {num_jobs} failed jobs are pending again")
