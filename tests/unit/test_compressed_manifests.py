"""Manifests as gzip and zstd: read as they are without, and whatever is wrong with them is said in one sentence."""

import gzip
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from producer.manifests.manifest import BadRow, Row, read_manifest
from producer.manifests.manifest import ReadOptions as Options
from producer.manifests.manifest_source import ManifestSource
from schemas.errors import ManifestError
from tests.unit.read_apart import ReadApart
from tests.unit.test_hostile_manifests import HALF_A_GIGABYTE, read, refusal


def gzipped(content: bytes) -> bytes:
    """The same bytes at every time: processes that share the tests must agree on their names."""
    return gzip.compress(content, mtime=0)


COMPRESS: dict[str, Callable[[bytes], bytes]] = {"gz": gzipped, "zst": zstandard.compress}
BOTH = pytest.mark.parametrize("suffix", ["gz", "zst"])


def bomb(suffix: str, num_bytes: int, beginning: bytes = b"", end: bytes = b"") -> bytes:
    """Zeros, in members of a hundred megabytes."""
    zeros = COMPRESS[suffix](b"\0" * 100_000_000)
    return COMPRESS[suffix](beginning) + zeros * (num_bytes // 100_000_000) + COMPRESS[suffix](end)


@BOTH
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.tsv", "Prompt\tNote\na fox\tx\n"),
        ("a.csv", 'Prompt,Note\n"a fox",x\n'),
        ("a.jsonl", '{"prompt": "a fox", "Note": "x"}\n'),
        ("a.txt", "a fox\n"),
    ],
)
def test_each_text_is_read_as_it_is_without(tmp_path: Path, name: str, text: str, encoding: str, suffix: str) -> None:
    plain = read(tmp_path / name, text.encode(encoding))
    packed = read(tmp_path / f"{name}.{suffix}", COMPRESS[suffix](text.encode(encoding)))
    assert plain == packed
    assert [type(row) for row in packed] == [Row]


@BOTH
def test_all_members_are_read(tmp_path: Path, suffix: str) -> None:
    content = b"".join(COMPRESS[suffix](f"fox {n}\n".encode() * 2_000) for n in range(3))
    rows = read(tmp_path / f"a.txt.{suffix}", content)
    assert [rows[n].spec.prompt for n in (0, 2_000, 5_999) if isinstance(rows[n], Row)] == [
        "fox 0",
        "fox 1",
        "fox 2",
    ]
    assert (len(rows), rows[-1].line) == (6_000, 6_000)


def test_a_frame_that_zstd_skips_may_come_first(tmp_path: Path) -> None:
    skipped = b"\x50\x2a\x4d\x18\x04\0\0\0abcd"
    assert len(read(tmp_path / "a.txt.zst", skipped + zstandard.compress(b"a fox\n") + skipped)) == 1


@BOTH
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, suffix: str) -> None:
    [_, bad] = read(tmp_path / f"a.tsv.{suffix}", COMPRESS[suffix](b"Prompt\tWidth\na\t64\nb\t65\n"))
    assert str(bad).startswith(f'{tmp_path}/a.tsv.{suffix}:3: column "Width": "65"')


@BOTH
def test_a_stream_that_ends_early_is_refused_however_much_of_it_is_there(tmp_path: Path, suffix: str) -> None:
    whole = COMPRESS[suffix](b"".join(b"fox number %d\n" % n for n in range(3_000)))
    for num_bytes in (5, 12, len(whole) // 2, len(whole) - 1):
        said = refusal(tmp_path / f"a.txt.{suffix}", whole[:num_bytes])
        assert said.endswith("stream ends early; was it copied to its end?"), (num_bytes, said)
        assert said.startswith(f"{tmp_path}/a.txt.{suffix} is not whole")


@BOTH
def test_a_stream_that_is_broken_is_refused(tmp_path: Path, suffix: str) -> None:
    whole = COMPRESS[suffix](b"".join(b"fox number %d\n" % n for n in range(3_000)))
    middle = len(whole) // 2
    for broken in (whole[:middle] + bytes(100) + whole[middle + 100 :], whole + b"junk" * 10):
        assert "stream cannot be unpacked" in refusal(tmp_path / f"a.txt.{suffix}", broken)


@BOTH
def test_rows_before_the_break_are_not_taken_for_all(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.txt.{suffix}"
    path.write_bytes(COMPRESS[suffix](b"fox\n" * 5)[:-3])
    with pytest.raises(ManifestError, match="not whole"):
        list(read_manifest(path, Options()))


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.jsonl.gz", b'{"prompt": "a"}\n', "is not compressed by gzip, and its name says that gzip compressed it"),
        ("a.jsonl.zst", gzipped(b"{}"), "is compressed by gzip, and its name does not say so; call it ….gz"),
        ("a.jsonl", gzipped(b"{}"), "is compressed by gzip, and its name does not say so; call it ….gz"),
        ("a.tsv", zstandard.compress(b"{}"), "is compressed by zstd, and its name does not say so; call it ….zst"),
        ("a.jsonl.gz", b"", "is empty, and its name says that gzip compressed it"),
        ("a.gz", gzipped(b"{}"), 'the name does not say what is in it; call it "….jsonl.gz", or say it'),
        ("a.jsonl.gz", gzipped(gzipped(b"{}")), "is compressed by gzip once more; unpack it first"),
        ("a.jsonl.gz", gzipped(zstandard.compress(b"{}")), "is compressed by zstd once more; unpack it first"),
        ("a.jsonl.gz", gzipped(b"PAR1\x15\x04"), "holds what gzip has compressed, and that is Parquet"),
        ("a.csv.zst", zstandard.compress(b"PK\x03\x04"), "is a spreadsheet or another ZIP archive"),
        ("a.csv.zst", zstandard.compress(b""), "is empty; its first line should name the columns"),
        ("a.xz", b"\xfd7zXZ\0", 'unknown suffix ".xz"; manifests are .tsv, .csv, .jsonl, .txt'),
    ],
)
def test_what_is_not_as_it_is_called_is_refused(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    said = refusal(tmp_path / name, content)
    assert sentence in said
    assert str(tmp_path / name) in said


def test_a_format_that_is_given_lets_the_first_bytes_tell_the_compression(tmp_path: Path) -> None:
    for name, content in (("a", b"a fox\n"), ("b.gz", gzipped(b"a fox\n")), ("c", zstandard.compress(b"a fox"))):
        (tmp_path / name).write_bytes(content)
        [row] = read_manifest(ManifestSource.parse(str(tmp_path / name), "txt"), Options())
        assert isinstance(row, Row)
        assert row.spec.prompt == "a fox"


def test_a_format_that_there_is_not_is_refused() -> None:
    with pytest.raises(ManifestError, match=r"--format xls: formats are tsv, csv, jsonl, txt, parquet"):
        ManifestSource.parse("a.xls", "xls")


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    said = refusal(tmp_path / "a.txt.zst", zstandard.compress(b"a fox\n"))
    assert said.endswith("is compressed by zstd, which needs a package: pip install 'nightshift[zstd]'")


# Bombs


@BOTH
def test_a_bomb_of_half_a_gigabyte_is_one_bad_line_and_never_held(
    tmp_path: Path, suffix: str, read_apart: ReadApart
) -> None:
    content = bomb(suffix, HALF_A_GIGABYTE, b"a cat\n", b"\na dog\n")
    assert len(content) < HALF_A_GIGABYTE // 900
    (tmp_path / f"a.txt.{suffix}").write_bytes(content)
    megabytes, found = read_apart(tmp_path / f"a.txt.{suffix}")
    assert found[1].endswith(f"a.txt.{suffix}:2: the line is longer than 1 MB")
    assert "line=3" in found[2]
    assert megabytes < 120


def test_a_bomb_without_an_end_is_one_sentence(tmp_path: Path, read_apart: ReadApart) -> None:
    (tmp_path / "a.tsv.gz").write_bytes(bomb("gz", 100_000_000))
    megabytes, found = read_apart(tmp_path / "a.tsv.gz")
    assert found == [f"ManifestError: {tmp_path}/a.tsv.gz:1: the header is longer than 1 MB"]
    assert megabytes < 60


def test_a_frame_that_wants_two_gigabytes_of_window_is_refused(tmp_path: Path) -> None:
    content = zstandard.FRAME_HEADER + b"\x00" + bytes([(31 - 10) << 3]) + b"\x31\0\0a fox\n"
    said = refusal(tmp_path / "a.txt.zst", content)
    assert "stream cannot be unpacked" in said
    assert "memory" in said


def test_reading_stops_at_the_limit_and_what_is_behind_it_may_be_broken(tmp_path: Path) -> None:
    whole = gzipped(b"".join(b"fox number %d\n" % n for n in range(3_000)))
    rows = read(tmp_path / "a.txt.gz", whole[: len(whole) // 2], limit=3)
    assert [type(row) for row in rows] == [Row] * 3
    assert not [row for row in rows if isinstance(row, BadRow)]
