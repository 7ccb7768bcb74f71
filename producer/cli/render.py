"""`nightshift render`: a manifest in, images out, on this machine, in one command."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from producer.cli.answers import JsonOption, print_json
from producer.cli.expansion_options import (
    BaseSeedOption,
    CountOption,
    MaxJobsOption,
    SweepOption,
    TemplatesOption,
    WildcardsOption,
    ZipOption,
)
from producer.cli.local_run import end_on_sigterm, run_here
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
from producer.manifests.counted_advice import CountedAdvice
from producer.questions.queries import BatchSummary
from producer.reports.gallery import make_sheet, place_images
from producer.submitting.orders import batch_request, read_options, source_of
from schemas.submit_order import MAX_JOBS

app = typer.Typer()

OutOption = Annotated[
    Path | None, typer.Option("--out", help="A folder for the images, with readable names, and the contact sheet.")
]


@dataclass(frozen=True)
class _Outcome:
    summary: BatchSummary
    sheet: Path | None
    images: str


@app.command(epilog="Example: nightshift render prompts.tsv --pair sdxl --set num_inference_steps=30 --out pictures")
def render(
    manifest: ManifestArgument,
    pair: PairOption = None,
    fields: SetOption = None,
    columns: MapOption = None,
    out: OutOption = None,
    limit: LimitOption = None,
    manifest_format: FormatOption = None,
    templates: TemplatesOption = None,
    wildcards: WildcardsOption = None,
    sweep: SweepOption = None,
    zipped: ZipOption = False,
    count: CountOption = 1,
    base_seed: BaseSeedOption = None,
    max_jobs: MaxJobsOption = MAX_JOBS,
    name: NameOption = None,
    priority: PriorityOption = 5,
    again: AgainOption = False,
    skip_invalid: SkipOption = False,
    as_json: JsonOption = False,
) -> None:
    """Render a manifest here and now: starts what is missing (Redis, dispatcher, workers) and stops it afterwards.

    Exit code 1 when a job failed.
    """
    end_on_sigterm()
    with open_session() as session:
        order = given_order(
            manifest, fields, columns, pair=pair, limit=limit, manifest_format=manifest_format,
            name=name, priority=priority, again=again,
            skip_invalid=skip_invalid, templates=templates, wildcards=wildcards, sweep=sweep, zipped=zipped,
            count=count, base_seed=base_seed, max_jobs=max_jobs,
        )  # fmt: skip
        options, request = read_options(session.settings, order), batch_request(session.settings, order)
        run = run_here(session, source_of(order), options, request)
        if not run.ended:
            _interrupted(session, run.summary, out)
            raise typer.Exit(130)
        outcome = _collect(session, run.summary, out)
        _report(session, outcome, run.advised, as_json)
    raise typer.Exit(1 if run.summary.num_failed else 0)


def _interrupted(session: Session, summary: BatchSummary, out: Path | None) -> None:
    """What there is, once the packs in hand have ended."""
    placed = ""
    if out is not None:
        placed = f"; {place_images(session.database, summary.id, out)} images so far are in {out}"
    print(
        f"batch {summary.id}: {summary.num_done} of {summary.num_jobs} done{placed};"
        " the rest waits in the ledger, `nightshift up` goes on with it",
        file=sys.stderr,
    )


def _collect(session: Session, summary: BatchSummary, out: Path | None) -> _Outcome:
    if out is not None:
        place_images(session.database, summary.id, out)
    path = (out or session.settings.home / "sheets") / f"contact-sheet-{summary.id}.png"
    drawn = make_sheet(session.database, summary, path)
    return _Outcome(summary, path if drawn else None, str(out) if out is not None else session.settings.images_url)


def _report(session: Session, outcome: _Outcome, advised: CountedAdvice, as_json: bool) -> None:
    paths: dict[str, Any] = {
        "sheet": outcome.sheet,
        "images": outcome.images,
        "ledger": session.database.safe_url,
    }
    if as_json:
        print_json({**outcome.summary.as_json(), **paths, "warnings": warnings_as_json(advised)})
        return
    show_batch(session, outcome.summary, as_json=False)
    for label, path in paths.items():
        if path is not None:
            print(f"{label + ':':8}{path}")
