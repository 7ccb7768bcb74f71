"""`nightshift pause`, `resume` and `reprioritise`."""

from typing import Annotated

import typer

from producer import changes
from producer.cli.answers import JsonOption, print_json, so_many
from producer.cli.change import BatchArgument
from producer.cli.session import open_session
from producer.cli.timing_options import PRIORITY, WEIGHT
from producer.questions.queries import find_batch
from schemas.errors import InputError

app = typer.Typer()


@app.command(epilog="Example: nightshift pause 3")
def pause(batch: BatchArgument, as_json: JsonOption = False) -> None:
    """Begin nothing more of a batch until it is resumed. What renders is finished."""
    with open_session() as session:
        found = find_batch(session.database, batch)
        summary = changes.pause(session.database, found.id)
        if as_json:
            print_json(summary.as_json())
        elif summary.ended:
            print(f"batch {summary.id} has ended; there is nothing left to pause")
        else:
            running = f"; {so_many(summary.num_running, 'job')} being finished" if summary.num_running else ""
            print(f"batch {summary.id} is paused with {so_many(summary.num_pending, 'job')}{running}")


@app.command(epilog="Example: nightshift resume 3")
def resume(batch: BatchArgument, as_json: JsonOption = False) -> None:
    """Go on with a batch that was paused."""
    with open_session() as session:
        found = find_batch(session.database, batch)
        summary = changes.resume(session.database, found.id)
        if as_json:
            print_json(summary.as_json())
        else:
            print(f"batch {summary.id} goes on with {so_many(found.num_jobs - found.num_ended, 'job')}")


@app.command(epilog="Example: nightshift reprioritise 3 --priority 9")
def reprioritise(
    batch: BatchArgument,
    priority: Annotated[int | None, PRIORITY] = None,
    weight: Annotated[float | None, WEIGHT] = None,
    as_json: JsonOption = False,
) -> None:
    """Put a batch before or behind others. It holds for every pack that a worker claims from now on."""
    if priority is None and weight is None:
        raise InputError("reprioritise takes --priority, --weight, or both")
    with open_session() as session:
        found = find_batch(session.database, batch)
        summary = changes.reprioritise(session.database, found, priority, weight)
        if as_json:
            print_json(summary.as_json())
        else:
            print(f"batch {summary.id} has priority {summary.priority} and weight {summary.weight:g}")
