"""`nightshift show`."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from farm.image_file import ImageFile, read_image_file
from producer.cli.answers import JsonOption, print_json
from schemas.errors import NightshiftError
from schemas.printable import printable
from schemas.refiner import FOREIGN

app = typer.Typer()

_SHOWN_CHARACTERS: Final = 200
_WATERMARK_BITS: Final = 48
#: what the record holds, in the order in which one asks for it
_HEADINGS: Final = ("spec", "provenance", "environment", "meta")

FilesArgument = Annotated[list[Path], typer.Argument(help="PNG, WebP or JPEG files.")]


@app.command(epilog="Example: nightshift show pictures/000001-a-red-fox.png")
def show(files: FilesArgument, as_json: JsonOption = False) -> None:
    """Show what image files say of themselves: how they were made, by which weights and versions, marked or not.

    Exit code 2 when a file cannot be read or carries no record of Nightshift; the others are shown all the same.
    """
    found: list[dict[str, Any]] = []
    exit_code = 0
    for path in files:
        try:
            file = read_image_file(path)
            found.append({**vars(file), "name": _named(path), "size_bytes": path.stat().st_size})
            if not as_json:
                _print(file, path.stat().st_size, first=len(found) == 1)
            file.nightshift_record()
        except NightshiftError as error:
            print(f"nightshift: {printable(str(error))}", file=sys.stderr)
            exit_code = max(exit_code, error.exit_code)
    if as_json:
        print_json(found)
    raise typer.Exit(exit_code)


def _print(file: ImageFile, size_bytes: int, *, first: bool) -> None:
    if not first:
        print()
    print(f"{printable(file.name)}: {file.format}, {file.width}×{file.height}, {size_bytes / 1000:,.1f} kB")
    rows = {"source type": _said(file.digital_source_type)}
    if file.record is not None:
        rows["watermark"] = _watermark(file.record)
    _print_rows(rows)
    print("\nparameters")
    for line in (file.parameters or "none").splitlines():
        print(f"  {printable(line)}")
    for heading in _HEADINGS:
        content = (file.record or {}).get(heading)
        if isinstance(content, dict) and content:
            print(f"\n{heading}")
            _print_rows(_with_a_say(dict(_flat(content))))


def _with_a_say(rows: dict[str, str]) -> dict[str, str]:
    """Without what says nothing in the refiner's mode, whose default is in the record all the same."""
    silent = {f"refiner.{name}" for name in FOREIGN.get(rows.get("refiner.mode", ""), ())}
    return {name: text for name, text in rows.items() if name not in silent}


def _named(path: Path) -> str:
    """For JSON, which is UTF-8, as file names need not be."""
    return os.fsencode(path).decode(errors="replace")


def _watermark(record: dict[str, Any]) -> str:
    provenance = record.get("provenance")
    bits = provenance.get("watermark_bits") if isinstance(provenance, dict) else None
    return "none" if bits is None else f"{printable(str(bits))} of {_WATERMARK_BITS} bits were read back"


def _flat(content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Fields of objects in it as a manifest's columns name them: ``refiner.start``. What is not set is left out."""
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None and value != []:
            yield prefix + name, _said(value)


def _said(value: Any) -> str:
    if value is None:
        return "none"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) > _SHOWN_CHARACTERS:
        return f"{printable(text[:_SHOWN_CHARACTERS])}... ({len(text):,} characters; --json shows all)"
    return printable(text) if text else '""'


def _print_rows(rows: dict[str, str]) -> None:
    width = min(max(map(len, rows)), 40)
    for name, value in rows.items():
        print(f"  {printable(name):{width}}  {value}")
