"""`nightshift grid`: every row of a manifest with one or two fields varied, side by side."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from producer.cli.answers import JsonOption, print_json
from producer.cli.expansion_options import BaseSeedOption, TemplatesOption, WildcardsOption
from producer.cli.local_run import LocalRun, end_on_sigterm, run_here
from producer.cli.manifest_options import (
    AgainOption,
    FormatOption,
    LimitOption,
    ManifestArgument,
    MapOption,
    NameOption,
    SetOption,
    SkipOption,
    given_order,
)
from producer.cli.session import PairOption, Session, open_session
from producer.cli.show import show_batch
from producer.cli.submit import warnings_as_json
from producer.cli.timing_options import PriorityOption
from producer.expanding.axes import parsed_axes
from producer.questions.queries import BatchSummary
from producer.reports.grid import IMAGES
from producer.reports.grid_gallery import PAGE, write_grids
from producer.submitting.orders import batch_request, read_options, source_of

app = typer.Typer()

_AXIS = "FIELD=VALUE,..."
_X_HELP = (
    "The columns: a field of the spec and its values. One with a comma stands in double quotes; off, for refiner.start,"
    " is the base alone; none leaves an optional field out."
)

XOption = Annotated[str, typer.Option("--x", metavar=_AXIS, help=_X_HELP)]
YOption = Annotated[str | None, typer.Option("--y", metavar=_AXIS, help="The lines; without it there is one.")]
OutOption = Annotated[
    Path | None, typer.Option("--out", help="A folder for sheets, page and images; else one in the home folder.")
]
MaxJobsOption = Annotated[int, typer.Option("--max-jobs", min=1, help="Refuse grids of more cells in all.")]


@app.command(epilog="Example: nightshift grid prompts.tsv --x refiner.start=off,0.8,0.9 --y seed=1,2,3 --out grids")
def grid(
    manifest: ManifestArgument,
    x: XOption,
    y: YOption = None,
    pair: PairOption = None,
    fields: SetOption = None,
    columns: MapOption = None,
    out: OutOption = None,
    limit: LimitOption = None,
    manifest_format: FormatOption = None,
    templates: TemplatesOption = None,
    wildcards: WildcardsOption = None,
    base_seed: BaseSeedOption = None,
    max_jobs: MaxJobsOption = 10_000,
    name: NameOption = None,
    priority: PriorityOption = 5,
    again: AgainOption = False,
    skip_invalid: SkipOption = False,
    as_json: JsonOption = False,
) -> None:
    """Render each row with one or two fields varied, at one seed, and lay the pictures side by side.

    Gives a labelled sheet (PNG) for each row and a page (HTML) with all of them. Renders here as `render` does.
    Exit code 1 when a job failed.
    """
    end_on_sigterm()
    axes = parsed_axes(x, y)
    with open_session() as session:
        order = given_order(
            manifest, fields, columns, pair=pair, limit=limit, manifest_format=manifest_format,
            name=name, priority=priority, again=again,
            skip_invalid=skip_invalid, templates=templates, wildcards=wildcards, base_seed=base_seed, max_jobs=max_jobs,
        )  # fmt: skip
        options, request = read_options(session.settings, order), batch_request(session.settings, order)
        request = replace(request, origin=None)  # an order has no axes
        run = run_here(session, source_of(order), replace(options, axes=axes), request)
        folder = out or session.settings.home / "sheets" / f"grid-{run.summary.id}"
        num_sheets = write_grids(session.database, run.summary, axes, folder)
        if not run.ended:
            _interrupted(run.summary, num_sheets, folder)
            raise typer.Exit(130)
        _report(session, run, {"num_sheets": num_sheets, **_paths(session, folder)}, as_json)
    raise typer.Exit(1 if run.summary.num_failed else 0)


def _interrupted(summary: BatchSummary, num_sheets: int, folder: Path) -> None:
    print(
        f"batch {summary.id}: {summary.num_done} of {summary.num_jobs} done; sheets so far: {num_sheets}, in {folder};"
        " the rest waits in the ledger, `nightshift up` goes on with it",
        file=sys.stderr,
    )


def _paths(session: Session, folder: Path) -> dict[str, object]:
    return {"page": folder / PAGE, "sheets": folder, "images": folder / IMAGES, "ledger": session.database.safe_url}


def _report(session: Session, run: LocalRun, made: dict[str, object], as_json: bool) -> None:
    if as_json:
        print_json({**run.summary.as_json(), "warnings": warnings_as_json(run.advised), **made})
        return
    show_batch(session, run.summary, as_json=False)
    for label in ("page", "sheets", "images", "ledger"):
        print(f"{label + ':':8}{made[label]}")
