"""Rows of a Parquet file. A process of its own reads it (``producer.manifests.parquet_reader``); here its lines are
rows as those of JSONL are. A Parquet file has no lines: its rows count from 1, and stand where others have the line."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.util import find_spec
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from producer.manifests.columns import GROUPS, Cells, normal_name
from producer.manifests.jsonl import json_rows
from producer.manifests.lines import Line, read_lines
from producer.manifests.manifest_file import said_of
from producer.manifests.manifest_source import STDIN, Place, place_name
from producer.manifests.parquet_reader import MAX_MEMORY_BYTES
from producer.manifests.rows import BadRow, shown_value
from producer.manifests.tables import checked_columns
from producer.manifests.wanted_columns import WantedColumns
from schemas.errors import ManifestError, MissingManifestError, StorageError
from schemas.printable import printable

#: fields that are lists in JSONL as well
_LISTS: Final = frozenset({
    "loras", "original_size", "target_size", "crops_coords_top_left", "negative_original_size", "negative_target_size",
    "negative_crops_coords_top_left",
})  # fmt: skip


def parquet_rows(place: Place, wanted: WantedColumns) -> Iterator[Cells | BadRow]:
    """The rows, in the file's order. Columns of bytes, such as pictures, are not read, and are no meta.

    Raises:
        ManifestError: the file cannot be read, is not whole, or takes more memory than a reader may have; a column is
            of no use for its field, or there is no prompt.
        StorageError: the store of the URL does not answer.
    """
    name = place_name(place)
    with _reader(place) as output:
        header = output.readline()
        if header.startswith(b"["):
            kinds = list(_ungrouped(json.loads(header)))
            mapping = wanted.mapping(column for column, _ in kinds)
            _check_columns(name, kinds, mapping, needs_prompt=wanted.needs_prompt)
            for row in json_rows(name, _lines(name, output), mapping):
                yield _of_a_row(row) if isinstance(row, BadRow) else row
        else:
            _check_end(name, header.decode(errors="replace"))


@contextmanager
def _reader(place: Place) -> Iterator[BufferedReader]:
    """What the process writes; it ends with the reading."""
    _check_place(place)
    request = {"path" if isinstance(place, Path) else "url": str(place)}
    command = [sys.executable, "-P", "-m", "producer.manifests.parquet_reader"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            with suppress(BrokenPipeError):  # then it says nothing, which is noticed
                cast(BinaryIO, process.stdin).write(json.dumps(request).encode() + b"\n")
                cast(BinaryIO, process.stdin).close()
            yield cast(BufferedReader, process.stdout)
        finally:
            process.kill()


def _check_place(place: Place) -> None:
    """Raises ManifestError where nothing can be read from its end, or there is nothing to read it with."""
    name = place_name(place)
    if place == STDIN or (isinstance(place, Path) and place.is_fifo()):
        raise ManifestError(f"{name} is read from front to end, and Parquet begins at its end; give it as a file")
    if isinstance(place, Path):
        with said_of(name), open(place, "rb"):
            pass
    if find_spec("pyarrow") is None:
        raise ManifestError(f"{name} is Parquet, which needs a package: pip install 'nightshift[parquet]'")


def _lines(name: str, output: BufferedReader) -> Iterator[Line]:
    for line in read_lines(output):
        if line.text.startswith("#"):
            _check_end(name, line.text)
            return
        yield Line(line.number, "\n", line.text[1:].strip()) if line.text.startswith("!") else line
    _check_end(name, "")


def _check_end(name: str, line: str) -> None:
    """Raises ManifestError or StorageError unless the file was read to its end."""
    end = json.loads(line[1:]) if line.startswith("#") else {"ended": "memory"}  # killed, or came to grief without
    for kind in (ManifestError, MissingManifestError, StorageError):
        if end["ended"] == kind.code:
            raise kind(end["said"])
    if end["ended"] == "refused":
        raise ManifestError(f"{name} {printable(end['said'])}")
    if end["ended"] == "memory":
        raise ManifestError(
            f"{name} cannot be read with {MAX_MEMORY_BYTES >> 20:,} MiB of memory: its pages or cells are too large,"
            " or it is broken; write it anew with cells of at most 1 MB and ordinary pages"
        )


def _check_columns(name: str, kinds: list[tuple[str, Any]], mapping: Mapping[str, str], *, needs_prompt: bool) -> None:
    """Raises ManifestError where the columns cannot be used."""
    columns = checked_columns(name, [column for column, _ in kinds], mapping, needs_prompt=needs_prompt)
    for place, field in columns.fields:
        column, kind = kinds[place]
        if kind == "bytes":
            raise ManifestError(f'{name}: column "{shown_value(column)}" holds bytes, and {field} is none')
        if kind != "one" and not (kind == "many" and field in _LISTS):
            raise ManifestError(f'{name}: column "{shown_value(column)}" holds several values, and {field} is one')


def _ungrouped(header: list[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Columns and kinds, with the fields of ``refiner`` and its like beside the others, as in JSONL."""
    for column, kind in header:
        if isinstance(kind, list) and normal_name(column) in GROUPS:
            yield from ((f"{column}.{inner}", "one") for inner in kind)
        else:
            yield column, kind


def _of_a_row(bad: BadRow) -> BadRow:
    return replace(bad, reason=f"the row {bad.reason.removeprefix('the line ')}") if bad.column is None else bad
