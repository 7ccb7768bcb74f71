"""`nightshift render`: a manifest in, images out, on this machine, in one command."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from producer.cli.manifest_options import (
    LimitOption,
    ManifestArgument,
    MapOption,
    NameOption,
    PriorityOption,
    SetOption,
    SkipOption,
    batch_request,
    read_options,
    submit_manifest,
)
from producer.cli.session import JsonOption, PairOption, Session, open_session, print_json
from producer.cli.show import show_batch
from producer.cli.submit import print_left_out
from producer.gallery import make_sheet, place_images
from producer.local_farm import LocalFarm
from producer.progress import follow, show_progress
from producer.queries import BatchSummary, batch_summary

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
    name: NameOption = None,
    priority: PriorityOption = 5,
    skip_invalid: SkipOption = False,
    as_json: JsonOption = False,
) -> None:
    """Render a manifest here and now: starts what is missing (Redis, dispatcher, workers) and stops it afterwards.

    Exit code 1 when a job failed.
    """
    with open_session() as session:
        options = read_options(session.settings, fields, columns, limit)
        request = batch_request(session.settings, manifest, pair, name, priority, skip_invalid)
        with LocalFarm(session.database, session.settings, request.pair) as farm:
            submission = submit_manifest(session.database, manifest, options, request)
            print_left_out(submission)
            summary = _follow(session, farm, submission.batch_id)
        outcome = _collect(session, summary, out)
        _report(session, outcome, as_json)
    raise typer.Exit(1 if summary.num_failed else 0)


def _follow(session: Session, farm: LocalFarm, batch_id: int) -> BatchSummary:
    try:
        return show_progress(follow(session.database, batch_id, farm.tend))
    except KeyboardInterrupt:
        summary = batch_summary(session.database, str(batch_id))
        print(
            f"\nstopping after the pack in hand (Ctrl-C again: at once). Batch {batch_id}: {summary.num_done} of"
            f" {summary.num_jobs} done; the rest waits in the ledger, `nightshift up` goes on with it",
            file=sys.stderr,
        )
        raise typer.Exit(130) from None


def _collect(session: Session, summary: BatchSummary, out: Path | None) -> _Outcome:
    if out is not None:
        place_images(session.database, summary.id, out)
    path = (out or session.settings.home / "sheets") / f"contact-sheet-{summary.id}.png"
    drawn = make_sheet(session.database, summary, path)
    return _Outcome(summary, path if drawn else None, str(out) if out is not None else session.settings.images_url)


def _report(session: Session, outcome: _Outcome, as_json: bool) -> None:
    paths: dict[str, Any] = {
        "sheet": outcome.sheet,
        "images": outcome.images,
        "ledger": session.database.safe_url,
    }
    if as_json:
        print_json({**outcome.summary.as_json(), **paths})
        return
    show_batch(session.database, outcome.summary, as_json=False)
    for label, path in paths.items():
        if path is not None:
            print(f"{label + ':':8}{path}")
