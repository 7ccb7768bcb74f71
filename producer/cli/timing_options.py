"""The options that say when, and in what order, a batch is rendered."""

from typing import Annotated, Final

import typer

PRIORITY: Final = typer.Option("--priority", min=0, max=9, help="9 is rendered before 0.")
WEIGHT: Final = typer.Option("--weight", min=0.001, max=1000, help="Its share of the devices among its priority.")

PriorityOption = Annotated[int, PRIORITY]
WeightOption = Annotated[float, WEIGHT]
WindowOption = Annotated[
    str | None,
    typer.Option("--window", metavar="HOURS", help="Begin packs only then: 'mon-fri 22:00-06:00 Europe/Berlin'."),
]
NotBeforeOption = Annotated[
    str | None, typer.Option("--not-before", metavar="TIME", help="Begin no sooner: 2026-11-22T22:00+01:00.")
]
DeadlineOption = Annotated[
    str | None, typer.Option("--deadline", metavar="TIME", help="Say so when the batch will not be done by then.")
]
