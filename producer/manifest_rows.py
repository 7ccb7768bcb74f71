"""The rows of a manifest as its files have them, whatever their format, one file after another."""

from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from typing import NamedTuple

from producer.columns import Cells, columns_of
from producer.decompression import PLAIN
from producer.jsonl import json_rows
from producer.lines import Line
from producer.manifest_file import ManifestFile, manifest_lines
from producer.manifest_format import PARQUET, told_format
from producer.manifest_source import ManifestSource, place_tail
from producer.parquet_rows import parquet_rows
from producer.rows import BadRow
from producer.tables import csv_records, table_rows, tsv_records
from schemas.errors import ManifestError


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
    """
    for file in _files(source):
        with closing(_rows(file, mapping, needs_prompt=needs_prompt)) as rows:
            yield Part(file.name, rows)


def _files(source: ManifestSource) -> list[ManifestFile]:
    return [ManifestFile(source.place, told_format(place_tail(source.place), source.format))]


def _rows(
    file: ManifestFile, mapping: Mapping[str, str], *, needs_prompt: bool
) -> Generator[Cells | BadRow, None, None]:
    if file.told.content == PARQUET:
        if file.told.compression not in (None, PLAIN):
            raise ManifestError(f"{file.name}: Parquet compresses itself, and is read from its end; unpack it first")
        yield from parquet_rows(file.place, mapping, needs_prompt=needs_prompt)
        return
    with manifest_lines(file) as lines:
        yield from _text_rows(file, lines, mapping, needs_prompt=needs_prompt)


def _text_rows(
    file: ManifestFile, lines: Iterator[Line], mapping: Mapping[str, str], *, needs_prompt: bool
) -> Iterator[Cells | BadRow]:
    match file.told.content:
        case "tsv":
            return table_rows(file.name, tsv_records(lines), mapping, needs_prompt=needs_prompt)
        case "csv":
            return table_rows(file.name, csv_records(file.name, lines), mapping, needs_prompt=needs_prompt)
        case "jsonl":
            return json_rows(file.name, lines, mapping)
    if mapping:
        raise ManifestError(f"--map: {file.name} has no columns; each line of a .txt is a prompt")
    return _prompts(file.name, lines)


def _prompts(file: str, lines: Iterator[Line]) -> Iterator[Cells | BadRow]:
    """Plain text: every line that is not blank is a prompt, as it is."""
    columns = columns_of(["prompt"], {})
    for record in tsv_records(lines):
        if record.flaw:
            yield BadRow(file, record.line, None, None, f"the line {record.flaw}")
        elif not record.blank:
            yield Cells(record.line, columns, ["\t".join(record.cells)])
