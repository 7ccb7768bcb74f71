"""Whatever a manifest holds, its reader gives rows, bad rows, or one sentence."""

import csv
import gzip
import io
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from producer.expanding.axes import parsed_axes
from producer.manifests.manifest import BadRow, ReadOptions, Row, read_manifest
from schemas.errors import ManifestError
from schemas.spec import JobSpec
from tests.unit.hostile import any_bytes, any_text, assert_is_sentence, field_names, numbers_as_text, rows

SUFFIXES = st.sampled_from([".tsv", ".csv", ".jsonl", ".txt"])
COMPRESSIONS = st.sampled_from([(".gz", gzip.compress), (".zst", zstandard.compress)])
ENCODINGS = st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16"])
LINE_ENDS = st.sampled_from(["\n", "\r\n", "\n\n", "\r"])
OPTIONS = st.sampled_from(
    [
        ReadOptions(),
        ReadOptions(),
        ReadOptions(defaults={"refiner.start": "0.9", "strength": "0.5", "width": "64"}),
        ReadOptions(columns={"Category": "negative_prompt"}),
        ReadOptions(axes=parsed_axes("refiner.start=off,0.8", "num_inference_steps=3,40"), max_jobs=30),
    ]
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("manifests")


def check(path: Path, content: bytes, options: ReadOptions) -> list[Row | BadRow]:
    path.write_bytes(content)
    try:
        found = list(read_manifest(path, options))
    except ManifestError as error:
        assert_is_sentence(error)
        return []
    for row in found:
        check_good(row) if isinstance(row, Row) else assert_is_sentence(row, 60_000)
    assert all(one.line <= other.line for one, other in pairwise(found))
    return found


def check_good(row: Row) -> None:
    assert JobSpec.from_json(row.spec.canonical) == row.spec
    assert JobSpec.from_json(row.spec.canonical).digest == row.spec.digest
    assert "\0" not in json.dumps(row.meta, ensure_ascii=False).encode().decode()
    assert len(row.spec.pack_key) <= 120


@given(suffix=SUFFIXES, content=any_bytes, options=OPTIONS)
def test_any_bytes_are_rows_or_refused(folder: Path, suffix: str, content: bytes, options: ReadOptions) -> None:
    check(folder / f"any{suffix}", content, options)


@given(content=any_bytes, suffix=SUFFIXES, compress=COMPRESSIONS, cut=st.integers(0, 30), flipped=st.integers(0, 60))
def test_any_bytes_in_a_compressed_stream_are_rows_or_refused(
    folder: Path, content: bytes, suffix: str, compress: tuple[str, Callable[[bytes], bytes]], cut: int, flipped: int
) -> None:
    ending, packed = compress[0], bytearray(compress[1](content))
    check(folder / f"packed{suffix}{ending}", bytes(packed), ReadOptions())
    check(folder / f"packed{suffix}{ending}", content, ReadOptions())
    check(folder / f"packed{suffix}{ending}", bytes(packed[: max(0, len(packed) - cut)]), ReadOptions())
    packed[flipped % len(packed)] ^= 0x55
    check(folder / f"packed{suffix}{ending}", bytes(packed), ReadOptions())


@given(content=any_bytes, suffix=SUFFIXES)
def test_any_bytes_after_utf16s_mark_are_rows_or_refused(folder: Path, suffix: str, content: bytes) -> None:
    check(folder / f"wide{suffix}", b"\xff\xfe" + content, ReadOptions())
    check(folder / f"wide{suffix}", ("\ufeff" + content.decode("latin-1")).encode("utf-16-be"), ReadOptions())


@given(content=st.lists(rows(), min_size=1, max_size=5), encoding=ENCODINGS, end=LINE_ENDS, options=OPTIONS)
def test_any_objects_are_rows_or_refused(
    folder: Path, content: list[dict[str, Any]], encoding: str, end: str, options: ReadOptions
) -> None:
    text = end.join(map(json.dumps, content))
    found = check(folder / "objects.jsonl", text.encode(encoding), options)
    if end in ("\n", "\r\n") and not options.axes and not options.columns:
        assert len(found) == len(content)  # no row is lost, and none comes of nothing


@given(
    header=st.lists(field_names, min_size=1, max_size=5),
    cells=st.lists(st.lists(any_text | numbers_as_text, max_size=6), max_size=5),
    suffix=st.sampled_from([".tsv", ".csv"]),
    encoding=ENCODINGS,
    end=LINE_ENDS,
    options=OPTIONS,
)
def test_any_table_is_rows_or_refused(
    folder: Path,
    header: list[str],
    cells: list[list[str]],
    suffix: str,
    encoding: str,
    end: str,
    options: ReadOptions,
) -> None:
    text = io.StringIO()
    table = [["Prompt", *header], *(["a cat", *row] for row in cells)]
    if suffix == ".csv":
        csv.writer(text, lineterminator=end).writerows(table)
    else:
        text.write(end.join("\t".join(row) for row in table))
    check(folder / f"table{suffix}", text.getvalue().encode(encoding, "surrogatepass"), options)


@given(rows=st.lists(st.tuples(any_text, any_text), min_size=1, max_size=4))
def test_what_the_csv_module_wrote_is_read_as_it_was(folder: Path, rows: list[tuple[str, str]]) -> None:
    text = io.StringIO()
    storable = [tuple(cell.encode(errors="ignore").decode().replace("\0", "") for cell in row) for row in rows]
    csv.writer(text).writerows([("Prompt", "Note"), *(("a" + prompt, note) for prompt, note in storable)])
    found = check(folder / "written.csv", text.getvalue().encode(), ReadOptions())
    read = [(row.spec.prompt, row.meta.get("Note", "")) for row in found if isinstance(row, Row)]
    assert read == [("a" + prompt, note if note.strip() else "") for prompt, note in storable]
