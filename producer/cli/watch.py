"""`nightshift watch`."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from farm.database import Database
from producer.cli.answers import JsonOption, print_json
from producer.cli.session import open_session
from producer.cli.show import batch_as_json, show_batch
from producer.questions.following import follow
from producer.questions.progress import show_progress
from producer.questions.queries import batch_summaries, find_batch, going_on
from schemas.errors import NotFoundError

app = typer.Typer()

WatchedArgument = Annotated[
    list[str] | None, typer.Argument(metavar="BATCH", help="Numbers or names; else all that have not ended.")
]


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
            print_json({"batches": [batch_as_json(session, summary) for summary in summaries]})
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
