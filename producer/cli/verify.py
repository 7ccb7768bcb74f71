"""`nightshift verify`."""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any, Final

import typer

from producer.cli.answers import so_many
from producer.cli.session import open_session
from producer.questions.queries import find_batch
from producer.upkeep.finding import Finding
from producer.upkeep.verification import Counts, Verification
from schemas.errors import InputError

app = typer.Typer()

_TOLD_SECONDS: Final = 10.0

BatchArgument = Annotated[str | None, typer.Argument(help="Number or name of a batch; else everything is checked.")]
CleanOption = Annotated[bool, typer.Option("--clean", help="Remove orphans that are older than a day.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON: a line for each finding, then the counts.")]


@app.command(epilog="Example: nightshift verify 3")
def verify(batch: BatchArgument = None, clean: CleanOption = False, as_json: JsonOption = False) -> None:
    """Check that every job, row and image file is as it should be: there, whole, as recorded, and in a legal state.

    Without a batch the image store is looked through for orphans too: files that no row is for. Changes nothing, but
    for --clean. Exit code 1 and a list where something is wrong.
    """
    if batch is not None and clean:
        raise InputError("--clean looks through the whole image store; leave the batch out")
    with open_session() as session:
        verification = Verification(session.database, session.settings, _Teller())
        if batch is None:
            findings = verification.of_everything(clean=clean)
        else:
            findings = verification.of_batch(find_batch(session.database, batch).id)
        _print_findings(findings, as_json)
        _print_counts(verification.counts, whole=batch is None, as_json=as_json)
    raise typer.Exit(1 if verification.counts.num_findings else 0)


class _Teller:
    """Says on stderr, at first and then every ten seconds, how far the verification is."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self, counts: Counts) -> None:
        if (now := time.monotonic()) >= self._next:
            self._next = now + _TOLD_SECONDS
            seen = f"{so_many(counts.num_jobs, 'job')}, {so_many(counts.num_images, 'image')} so far"
            print(f"verifying: {seen}; findings: {counts.num_findings:,}", file=sys.stderr, flush=True)


def _print_findings(findings: Iterator[Finding], as_json: bool) -> None:
    for finding in findings:
        print(json.dumps(finding.as_json(), ensure_ascii=False) if as_json else finding.line, flush=True)


def _print_counts(counts: Counts, *, whole: bool, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_as_json(counts)))
        return
    parts = [so_many(counts.num_jobs, "job"), so_many(counts.num_images, "image"), so_many(counts.num_bytes, "byte")]
    if whole:
        removed = f" ({counts.orphans.num_removed:,} removed, {so_many(counts.orphans.removed_bytes, 'byte')})"
        parts.append(so_many(counts.orphans.num_orphans, "orphan") + (removed if counts.orphans.num_removed else ""))
    print(f"checked {', '.join(parts)}; findings: {counts.num_findings:,}")


def _as_json(counts: Counts) -> dict[str, Any]:
    flat = asdict(counts)
    return {**flat, **flat.pop("orphans")}
