"""The rows of a manifest as its files have them, whatever their format, one file after another."""

import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from itertools import chain
from typing import NamedTuple, TypeVar

from producer.manifests.columns import Cells, columns_of
from producer.manifests.decompression import PLAIN
from producer.manifests.jsonl import json_rows
from producer.manifests.lines import Line
from producer.manifests.manifest_file import ManifestFile, manifest_lines
from producer.manifests.manifest_folder import folder_files
from producer.manifests.manifest_format import PARQUET, told_format
from producer.manifests.manifest_source import ManifestSource, place_tail
from producer.manifests.parquet_rows import parquet_rows
from producer.manifests.rows import BadRow
from producer.manifests.tables import Record, csv_records, table_rows, tsv_records
from producer.manifests.wanted_columns import WantedColumns
from schemas.errors import ManifestError

_Item = TypeVar("_Item")


class Part(NamedTuple):
    """A file of the manifest. ``file``: its name, printable."""

    file: str
    cells: Iterator[Cells | BadRow]


def manifest_parts(
    source: ManifestSource, mapping: Mapping[str, str], *, needs_prompt: bool
) -> Generator[Part, None, None]:
    """Each file, opened when its first row is asked for. ``mapping``: normal column name → field.

    Raises:
        ManifestError: by the rows, or between the files: one cannot be read, or not as it is called.
        StorageError: in the same way, where nobody answers for a URL.
    """
    files = folder_files(source)
    wanted = WantedColumns(mapping, needs_prompt, is_dataset=files is not None)
    for file in files or [ManifestFile(source.place, told_format(place_tail(source.place), source.format))]:
        with closing(_rows(file, wanted)) as rows:
            yield Part(file.name, rows)


def _rows(file: ManifestFile, wanted: WantedColumns) -> Generator[Cells | BadRow, None, None]:
    if file.told.content == PARQUET:
        if file.told.compression not in (None, PLAIN):
            raise ManifestError(f"{file.name}: Parquet compresses itself, and is read from its end; unpack it first")
        yield from parquet_rows(file.place, wanted)
        return
    with manifest_lines(file) as lines:
        yield from _text_rows(file, lines, wanted)


def _text_rows(file: ManifestFile, lines: Iterator[Line], wanted: WantedColumns) -> Iterator[Cells | BadRow]:
    match file.told.content:
        case "tsv":
            return _table_rows(file.name, tsv_records(lines), wanted)
        case "csv":
            return _table_rows(file.name, csv_records(file.name, lines), wanted)
        case "jsonl":
            first, lines = _first(lines, lambda line: bool(line.flaw or line.text.strip()))
            return json_rows(file.name, lines, wanted.mapping(_keys(first)))
    if wanted.given:
        raise ManifestError(f"--map: {file.name} has no columns; each line of a .txt is a prompt")
    return _prompts(file.name, lines)


def _table_rows(file: str, records: Iterator[Record], wanted: WantedColumns) -> Iterator[Cells | BadRow]:
    header, records = _first(records, lambda record: not record.blank)
    mapping = wanted.mapping(header.cells if header else ())
    return table_rows(file, records, mapping, needs_prompt=wanted.needs_prompt)


def _first(items: Iterator[_Item], is_one: Callable[[_Item], bool]) -> tuple[_Item | None, Iterator[_Item]]:
    """The first that is one, and all from it on."""
    first = next(filter(is_one, items), None)
    return first, items if first is None else chain([first], items)


def _keys(line: Line | None) -> Iterable[str]:
    """Of the first object: the others of a dataset have the same."""
    try:
        content = json.loads(line.text) if line is not None and not line.flaw else None
    except (ValueError, RecursionError):
        return ()  # which is said when the line is read
    return content if isinstance(content, dict) else ()


def _prompts(file: str, lines: Iterator[Line]) -> Iterator[Cells | BadRow]:
    """Plain text: every line that is not blank is a prompt, as it is."""
    columns = columns_of(["prompt"], {})
    for record in tsv_records(lines):
        if record.flaw:
            yield BadRow(file, record.line, None, None, f"the line {record.flaw}")
        elif not record.blank:
            yield Cells(record.line, columns, ["\t".join(record.cells)])
