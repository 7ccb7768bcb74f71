"""`nightshift failures`."""

import json
from typing import Annotated, Any

import typer

from producer.cli.answers import JsonOption, print_json
from producer.cli.session import open_session
from producer.questions.queries import failed_jobs, find_batch
from schemas.printable import printable
from schemas.spec import JobSpec

app = typer.Typer()

_SHOWN_CHARACTERS = 100

TracebackOption = Annotated[bool, typer.Option("--traceback", help="Show where in the code each failed, too.")]


@app.command(epilog="Example: nightshift failures 3 --traceback")
def failures(
    batch: Annotated[str, typer.Argument(help="Number or name of a batch.")],
    with_traceback: TracebackOption = False,
    as_json: JsonOption = False,
) -> None:
    """List the failed jobs of a batch, each with its reason. Exit code 1 where there are some."""
    with open_session() as session:
        summary = find_batch(session.database, batch)
        jobs = failed_jobs(session.database, summary.id)
        if as_json:
            print_json([{**job._mapping, "batch_id": summary.id, "spec": json.loads(job.spec)} for job in jobs])
        elif not summary.num_failed:
            print(f"no job of batch {summary.id} failed")
        else:
            for job in jobs:
                _print(summary.id, job, with_traceback)
    raise typer.Exit(1 if summary.num_failed else 0)


def _print(batch_id: int, job: Any, with_traceback: bool) -> None:
    tries = "1 try" if job.attempts == 1 else f"{job.attempts} tries"
    print(f"{batch_id}/{job.number} {job.error_code} ({tries}): {printable(job.error)}")
    prompt = JobSpec.from_json(job.spec).prompt
    print(f"  {printable(prompt[:_SHOWN_CHARACTERS])}{'...' if len(prompt) > _SHOWN_CHARACTERS else ''}")
    for line in (job.traceback or "").splitlines() if with_traceback else ():
        print(f"    {printable(line)}")
