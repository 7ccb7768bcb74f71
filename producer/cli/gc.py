"""`nightshift gc`."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from producer.cli.session import open_session
from producer.questions.queries import find_batch
from producer.upkeep.garbage import Garbage, GarbageCounts

app = typer.Typer()

BatchOption = Annotated[
    str | None, typer.Option("--batch", help="Number or name of a batch that has ended: it and its images, alone.")
]
YesOption = Annotated[bool, typer.Option("--yes", help="Remove what is listed; without it nothing at all is removed.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON: a line for each thing, then the counts.")]


@app.command(epilog="Example: nightshift gc --yes")
def gc(batch: BatchOption = None, yes: YesOption = False, as_json: JsonOption = False) -> None:
    """List what can be removed, and why: files that no row is for, temporary files, inputs that no job names.

    Nothing that is younger than a day. A recorded image is removed with its batch alone, where --batch names it.
    """
    with open_session() as session:
        garbage = Garbage(session.database, session.settings, removes=yes)
        findings = garbage.unrecorded() if batch is None else garbage.of_batch(find_batch(session.database, batch))
        for finding in findings:
            print(json.dumps(finding.as_json(), ensure_ascii=False) if as_json else finding.line, flush=True)
        counts = garbage.counts
    if as_json:
        flat = asdict(counts)
        num_recent = flat.pop("orphans")["num_recent"]
        print(json.dumps({**flat, "num_recent": num_recent}))
    else:
        print(_sentence(counts, of_batch=batch is not None, removed=yes))


def _sentence(counts: GarbageCounts, *, of_batch: bool, removed: bool) -> str:
    jobs = f"{counts.num_jobs:,} jobs, " if of_batch else ""
    if not removed:
        return f"can be removed: {jobs}{counts.num_files:,} files, {counts.num_bytes:,} bytes; nothing was"
    bytes_ = "" if of_batch else f", {counts.removed_bytes:,} bytes"
    kept = f"; {counts.num_kept:,} files are younger than a day or elsewhere" if counts.num_kept else ""
    return f"removed: {jobs}{counts.num_removed:,} files{bytes_}{kept}"
