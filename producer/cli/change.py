"""`nightshift cancel` and `nightshift retry`."""

from typing import Annotated

import typer

from farm import ledger
from producer.cli.session import JsonOption, open_session, print_json
from producer.queries import batch_summary

app = typer.Typer()

BatchArgument = Annotated[str, typer.Argument(help="Number or name of a batch.")]


@app.command(epilog="Example: nightshift cancel 3")
def cancel(batch: BatchArgument, as_json: JsonOption = False) -> None:
    """Cancel what is left of a batch: what waits at once, what renders within a lease's third. Images stay."""
    with open_session() as session:
        batch_id = batch_summary(session.database, batch).id
        ledger.cancel_batch(session.database, batch_id)
        while ledger.sweep_canceled(session.database, batch_id):
            pass
        summary = batch_summary(session.database, str(batch_id))
        if as_json:
            print_json(summary.as_json())
            return
        running = f"; {summary.num_running} are stopping" if summary.num_running else ""
        print(f"batch {batch_id}: {summary.num_canceled} jobs canceled, {summary.num_done} done{running}")


@app.command(epilog="Example: nightshift retry 3")
def retry(batch: BatchArgument, as_json: JsonOption = False) -> None:
    """Give the failed jobs of a batch another try, with all attempts anew."""
    with open_session() as session:
        summary = batch_summary(session.database, batch)
        num_jobs = ledger.retry_failed(session.database, summary.id)
        if as_json:
            print_json({"batch_id": summary.id, "num_retried": num_jobs})
        else:
            print(f"batch {summary.id}: {num_jobs} failed jobs are pending again")
