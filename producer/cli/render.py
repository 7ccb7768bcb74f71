"""`nightshift render`: a manifest in, images out, on this machine, in one command."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

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
    anew,
    batch_request,
    read_options,
)
from producer.cli.session import JsonOption, PairOption, Session, open_session, print_json
from producer.cli.show import show_batch
from producer.cli.submit import warnings_as_json
from producer.cli.timing_options import PriorityOption
from producer.counted_advice import CountedAdvice
from producer.gallery import make_sheet, place_images
from producer.manifest_source import ManifestSource
from producer.queries import BatchSummary

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
    source = ManifestSource.parse(manifest, manifest_format)
    with open_session() as session:
        options = read_options(session.settings, fields, columns, limit)
        request = batch_request(session.settings, source, pair, name, priority, skip_invalid)
        request = anew(request) if again else request
        run = run_here(session, source, options, request)
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
