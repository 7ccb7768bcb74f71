"""Parquet as a manifest: its values are those that JSONL would have, and no file takes more than a bounded memory."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from producer.manifests.manifest import BadRow, Row
from tests.unit.read_apart import ReadApart
from tests.unit.test_hostile_manifests import HALF_A_GIGABYTE, one_bad, read, refusal, sparse

#: Writes a file whose only page unfolds to one cell of 350 MB, which stands in memory three times when it is read.
WRITE_CELL = """
import sys
import pyarrow as pa
from pyarrow import parquet
table = pa.table({"prompt": pa.array(["x" * 350_000_000])})
parquet.write_table(table, sys.argv[1], compression="zstd", use_dictionary=False, write_statistics=False)
"""


def parquet_of(columns: dict[str, Any], **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(columns), sink, **options)
    return bytes(sink.getvalue())


def test_values_have_their_types_and_null_is_no_value(tmp_path: Path) -> None:
    rows = read(
        tmp_path / "a.parquet",
        parquet_of({
            "Prompt": ["a fox", "a cat"],
            "width": pa.array([64, None], pa.int16()),
            "guidance_scale": pa.array([0.5, None], pa.float32()),
            "seed": pa.array([2**64 - 1, 7], pa.uint64()),
            "original_size": [[512, 640], None],
            "scheduler": pa.array(["ddim", None]).dictionary_encode(),
            "refiner": [{"mode": "off", "start": None}, {"mode": None, "start": 0.9}],
            "refiner.aesthetic_score": [None, 6.5],
            "ok": [True, None],
            "tags": [["a", "b"], None],
            "when": pa.array([1, None], pa.timestamp("ns")),
        }),
    )  # fmt: skip
    first, second = (row for row in rows if isinstance(row, Row))
    assert (first.spec.width, first.spec.guidance_scale, first.spec.seed) == (64, 0.5, 2**64 - 1)
    assert (first.spec.original_size, first.spec.refiner.mode) == ((512, 640), "off")
    assert first.spec.scheduler == "DDIMScheduler"
    assert first.meta == {"ok": "true", "tags": '["a", "b"]', "when": "1970-01-01 00:00:00.000000001"}
    assert (second.spec.width, second.spec.refiner.start, second.spec.refiner.aesthetic_score) == (1024, 0.9, 6.5)
    assert (second.line, second.meta) == (2, {})


def test_a_lora_is_a_struct_and_its_nulls_are_no_values(tmp_path: Path) -> None:
    loras = [
        [{"name": "film", "sha256": "ab" * 32, "weight": 0.5}],
        [{"name": "x", "sha256": "cd" * 32, "weight": None}],
    ]
    rows = read(tmp_path / "a.parquet", parquet_of({"prompt": ["a", "b"], "loras": loras}))
    assert [row.spec.loras[0].weight for row in rows if isinstance(row, Row)] == [0.5, 1.0]


def test_row_groups_are_read_one_after_another_and_rows_are_counted_through(tmp_path: Path) -> None:
    content = parquet_of({"prompt": [f"fox {n}" for n in range(1_000)], "width": [64] * 900 + [65] + [64] * 99},
                         row_group_size=300, compression="gzip")  # fmt: skip
    rows = read(tmp_path / "a.parquet", content)
    assert [row.line for row in rows] == list(range(1, 1_001))
    [bad] = [row for row in rows if isinstance(row, BadRow)]
    assert str(bad).startswith(f'{tmp_path}/a.parquet:901: column "width": "65": ')


def test_a_picture_beside_the_prompt_is_not_read(tmp_path: Path) -> None:
    content = {"prompt": ["a"], "image": [{"bytes": b"x", "path": "a.png"}], "raw": [b"x"], "width": [64]}
    [row] = read(tmp_path / "a.parquet", parquet_of(content))
    assert isinstance(row, Row)
    assert (row.meta, row.spec.width) == ({}, 64)


def test_text_that_is_no_utf_8_and_a_row_that_is_too_long_are_bad_alone(tmp_path: Path) -> None:
    broken = pa.Array.from_buffers(pa.string(), 4, pa.array([b"a", b"b\xff", b"c", b"x" * 1_200_000]).buffers())
    rows = read(tmp_path / "a.parquet", parquet_of({"prompt": broken}))
    assert [type(row) for row in rows] == [Row, BadRow, Row, BadRow]
    assert str(rows[1]).endswith("a.parquet:2: the row has in 'prompt' what is not UTF-8 (0xff at byte 2)")
    assert str(rows[3]).endswith("a.parquet:4: the row is longer than 1 MB")


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"text": ["a"]}, 'has no prompt column; it has "text"; say which is the prompt: --map COLUMN=prompt'),
        ({"prompt": [b"a"]}, 'column "prompt" holds bytes, and prompt is none'),
        ({"prompt": [["a"]]}, 'column "prompt" holds several values, and prompt is one'),
        ({"prompt": ["a"], "Width": [{"x": 1}]}, 'column "Width" holds several values, and width is one'),
        ({"prompt": ["a"], "refiner": [{"x": 1}]}, 'column "refiner.x" is no field of the refiner'),
        ({"prompt": ["a"], "Prompt": ["b"]}, 'columns "prompt", "Prompt" are both read as prompt'),
        ({"prompt": pa.array([], pa.string())}, "has no rows"),
    ],
)
def test_columns_that_cannot_be_used_are_refused(tmp_path: Path, columns: dict[str, Any], sentence: str) -> None:
    said = refusal(tmp_path / "a.parquet", parquet_of(columns))
    assert sentence in said
    assert str(tmp_path / "a.parquet") in said


def test_a_column_is_mapped_and_reading_stops_at_the_limit(tmp_path: Path) -> None:
    content = parquet_of({"text": ["a", "b"] * 50_000})
    rows = read(tmp_path / "a.parquet", content, columns={"text": "prompt"}, limit=1)
    assert [row.spec.prompt for row in rows if isinstance(row, Row)] == ["a"]
    assert "has no column" in refusal(tmp_path / "a.parquet", content, columns={"caption": "prompt"})


def test_a_file_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    whole = parquet_of({"prompt": ["a fox"] * 100})
    for num_bytes in (4, 12, len(whole) // 2, len(whole) - 1):
        assert "is not whole: Parquet ends with a footer" in refusal(tmp_path / "a.parquet", whole[:num_bytes])


def test_a_file_that_is_broken_inside_is_refused_or_read_and_never_more(tmp_path: Path) -> None:
    whole = parquet_of({"prompt": [f"a fox {n}" for n in range(2_000)]}, compression="snappy", use_dictionary=False)
    for place in (30, len(whole) // 2, len(whole) - 200):
        said = refusal(tmp_path / "a.parquet", whole[:place] + b"\xff" * 100 + whole[place + 100 :])
        assert said.startswith(f"{tmp_path}/a.parquet cannot be read")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.jsonl", b"PAR1\x15\x04", "is Parquet; call it ….parquet, uncompressed, or say it: --format parquet"),
        ("a.parquet", b'{"prompt": "a"}\n' * 9, "is no Parquet file, whatever it is called"),
        ("a.parquet", b"", "is empty"),
        ("a.parquet.gz", b"\x1f\x8b", "Parquet compresses itself, and is read from its end; unpack it first"),
    ],
)
def test_what_is_not_as_it_is_called_is_refused(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    assert sentence in refusal(tmp_path / name, content)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr("producer.manifests.parquet_rows.find_spec", importlib.util.find_spec)
    assert refusal(tmp_path / "a.parquet", b"PAR1").endswith("pip install 'nightshift[parquet]'")


# Bombs


def test_a_footer_that_says_it_has_two_gigabytes_is_refused_unread(tmp_path: Path, read_apart: ReadApart) -> None:
    sparse(tmp_path / "a.parquet", b"PAR1\x15\x04\x15", HALF_A_GIGABYTE, b"\xff\xff\xff\x7fPAR1")
    megabytes, found = read_apart(tmp_path / "a.parquet")
    assert found == [f"ManifestError: {tmp_path}/a.parquet says that its footer has 2,147,483,647 bytes;"
                     " 16,000,000 are the most"]  # fmt: skip
    assert megabytes < 20


def test_a_page_that_unfolds_to_one_huge_cell_is_refused(tmp_path: Path, read_apart: ReadApart) -> None:
    subprocess.run([sys.executable, "-c", WRITE_CELL, str(tmp_path / "a.parquet")], check=True)
    assert (tmp_path / "a.parquet").stat().st_size < 100_000
    megabytes, [said] = read_apart(tmp_path / "a.parquet")
    assert "a.parquet cannot be read with 1,024 MiB of memory: its pages or cells are too large" in said
    assert megabytes < 20


def test_a_dictionary_that_repeats_a_large_cell_is_refused(tmp_path: Path) -> None:
    """Five megabytes, and 100,000 rows that all stand for them: half a terabyte out of a kilobyte."""
    indices = pa.array([0] * 100_000, pa.int32())
    cells = pa.DictionaryArray.from_arrays(indices, pa.array(["x" * 5_000_000]))
    assert len(content := parquet_of({"prompt": cells}, compression="zstd")) < 10_000
    assert "cannot be read with 1,024 MiB of memory" in refusal(tmp_path / "a.parquet", content)


def test_a_column_too_many_is_refused(tmp_path: Path) -> None:
    content = parquet_of({"prompt": ["a"], **{f"c{n}": [1] for n in range(1_000)}})
    assert refusal(tmp_path / "a.parquet", content).endswith("there are 1001 columns; 1000 are the most")


def test_a_row_of_none_is_bad_alone(tmp_path: Path) -> None:
    bad = one_bad(tmp_path / "a.parquet", parquet_of({"prompt": ["a", None]}))
    assert (bad.line, bad.column) == (2, "prompt")
