"""The manifests that somebody will hand us, by accident or not: refused or read, in bounded memory and time."""

import json
import os
import threading
import time
from pathlib import Path

import pytest

from producer.manifests.columns import MAX_COLUMNS
from producer.manifests.jsonl import MAX_NESTING
from producer.manifests.lines import MAX_LINE_BYTES
from producer.manifests.manifest import BadRow, ReadOptions, Row, read_manifest
from schemas.errors import ManifestError
from schemas.fields import MAX_PROMPT_CHARACTERS
from tests.unit.hostile import STORABLE_CHARACTERS
from tests.unit.read_apart import ReadApart

HALF_A_GIGABYTE = 500_000_000


def read(path: Path, content: str | bytes, **options: object) -> list[Row | BadRow]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_manifest(path, ReadOptions(**options)))


def refusal(path: Path, content: str | bytes, **options: object) -> str:
    with pytest.raises(ManifestError) as error:
        read(path, content, **options)
    assert str(error.value).isprintable()
    return str(error.value)


def one_bad(path: Path, content: str | bytes, **options: object) -> BadRow:
    [bad] = [row for row in read(path, content, **options) if isinstance(row, BadRow)]
    assert str(bad).isprintable()
    return bad


def sparse(path: Path, beginning: bytes, size_bytes: int, end: bytes) -> Path:
    """A file with a hole of zeros in it, which takes no room on the disk."""
    with open(path, "wb") as file:
        file.write(beginning)
        file.truncate(size_bytes)
        file.seek(0, os.SEEK_END)
        file.write(end)
    return path


# A line without an end


def test_a_line_of_half_a_gigabyte_is_bad_alone_and_never_held(tmp_path: Path, read_apart: ReadApart) -> None:
    path = sparse(tmp_path / "prompts.txt", b"a cat\n", HALF_A_GIGABYTE, b"\na dog\n")
    megabytes, found = read_apart(path)
    assert found[1].endswith("prompts.txt:2: the line is longer than 1 MB")
    assert (found[0].partition(":")[0], found[2].partition(":")[0]) == ("Row", "Row")
    assert "line=3" in found[2]
    assert megabytes < 100


def test_a_header_of_a_hundred_megabytes_is_refused(tmp_path: Path, read_apart: ReadApart) -> None:
    megabytes, found = read_apart(sparse(tmp_path / "prompts.csv", b'Prompt,"', HALF_A_GIGABYTE // 5, b"\n"))
    assert found == [f"ManifestError: {tmp_path}/prompts.csv:1: the header is longer than 1 MB"]
    assert megabytes < 100


def test_a_line_of_200_megabytes_in_utf_16_is_bad_alone_and_never_held(tmp_path: Path, read_apart: ReadApart) -> None:
    path = sparse(tmp_path / "a.txt", "a cat\n".encode("utf-16"), 200_000_000, "\na dog\n".encode("utf-16-le"))
    megabytes, found = read_apart(path)
    assert found[1].endswith("a.txt:2: the line is longer than 1 MB")
    assert "line=3" in found[2]
    assert megabytes < 100


def test_a_line_out_of_a_pipe_is_never_held(tmp_path: Path, read_apart: ReadApart) -> None:
    pipe = tmp_path / "prompts.jsonl"
    os.mkfifo(pipe)

    def write() -> None:
        with open(pipe, "wb") as stream:
            for _ in range(200):
                stream.write(b'{"a":' * 200_000)
            stream.write(b'\n{"prompt": "a cat"}\n')

    writer = threading.Thread(target=write)
    writer.start()
    megabytes, found = read_apart(pipe)
    writer.join()
    assert found[0].endswith("prompts.jsonl:1: the line is longer than 1 MB")
    assert found[1].startswith("Row: ")
    assert megabytes < 100


# Columns, nesting, keys


@pytest.mark.parametrize("name", ["a.tsv", "a.csv"])
def test_ten_million_columns_are_refused_in_bounded_memory(tmp_path: Path, name: str, read_apart: ReadApart) -> None:
    sign = b"\t" if name == "a.tsv" else b","
    (tmp_path / name).write_bytes(b"Prompt" + (sign + b"x") * 10_000_000 + b"\n")
    megabytes, found = read_apart(tmp_path / name)
    assert found == [f"ManifestError: {tmp_path / name}:1: the header is longer than 1 MB"]
    assert megabytes < 100


@pytest.mark.parametrize("name", ["a.tsv", "a.csv"])
def test_as_many_columns_as_a_line_holds_are_refused(tmp_path: Path, name: str) -> None:
    sign = "\t" if name == "a.tsv" else ","
    num = MAX_LINE_BYTES // 2 - 10
    assert refusal(tmp_path / name, "Prompt" + f"{sign}x" * num).endswith(
        f"there are {num + 1} columns; {MAX_COLUMNS} are the most"
    )
    row = one_bad(tmp_path / name, f"Prompt\n{sign.join('x' * num)}\n")
    assert row.reason == f"the row has {num} columns, the header has 1"


def test_a_json_row_of_ten_million_keys_is_bad_alone(tmp_path: Path, read_apart: ReadApart) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"prompt": "a"' + b',"k":1' * 10_000_000 + b'}\n{"prompt": "a"}\n')
    megabytes, found = read_apart(path)
    assert found[0].endswith("a.jsonl:1: the line is longer than 1 MB")
    assert found[1].startswith("Row: ")
    assert megabytes < 100


def test_rows_of_ever_other_long_keys_do_not_fill_the_memory(tmp_path: Path, read_apart: ReadApart) -> None:
    path = tmp_path / "a.jsonl"
    with open(path, "w") as file:
        for n in range(40):
            file.write(json.dumps({"prompt": "a", **{f"\U0001f98a{n}-{m}" + "k" * 900: 1 for m in range(900)}},
                                  ensure_ascii=False) + "\n")  # fmt: skip
    megabytes, found = read_apart(path)
    assert found[0].startswith("Row: ")
    assert megabytes < 200


@pytest.mark.parametrize("brackets", ["[]", ("{'a':", "}")])
def test_json_nested_ten_thousand_deep_is_bad_and_the_sentence_names_the_limit(
    tmp_path: Path, brackets: tuple[str, str]
) -> None:
    deep = brackets[0].replace("'", '"') * 10_000 + "1" + brackets[1] * 10_000
    bad = one_bad(tmp_path / "a.jsonl", f'{{"prompt": "a"}}\n{{"prompt": "a", "x": {deep}}}\n')
    assert bad.reason == f"the line is nested too deep; {MAX_NESTING} levels are the most"


def test_what_is_said_of_long_names_and_many_flaws_is_short(tmp_path: Path) -> None:
    long = "k" * 400_000
    twice = one_bad(tmp_path / "a.jsonl", f'{{"{long}": 1, "{long}": 2}}')
    assert str(twice).endswith('... (400000 characters)": stands twice in one object')
    many = one_bad(tmp_path / "a.jsonl", json.dumps({"prompt": "a", **{f"{n}": float("nan") for n in range(900)}}))
    assert many.reason.endswith('column "49": "NaN": is not a finite number; and 850 more')
    header = "\t".join(f"c{n}" for n in range(900))
    assert refusal(tmp_path / "a.tsv", header).count('"') == 2 * 30
    assert len(refusal(tmp_path / "a.tsv", "\t".join(["x" * 400_000, "y"]), columns={"z": "prompt"})) < 400


def test_half_a_surrogate_pair_is_refused_in_every_field_that_reads_text(tmp_path: Path) -> None:
    for field in ("aspect_ratio", "scheduler", "scheduler_options.solver_type", "init_image", "refiner.mode"):
        bad = one_bad(tmp_path / "a.jsonl", f'{{"prompt": "a", "{field}": "\\ud800"}}')
        assert (bad.column, bad.value) == (field, "\\ud800")


# Numbers and texts out of bounds


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("width", "100000", "should be less than or equal to 4096"),
        ("num_inference_steps", "1000000000", "should be less than or equal to 999"),
        ("seed", "-1", "is not between 0 and 18446744073709551615"),
        ("seed", "18446744073709551616", "is not between 0 and 18446744073709551615"),
        ("seed", "9" * 4_000, ""),
        ("guidance_scale", "NaN", "should be a finite number"),
        ("guidance_scale", "Infinity", "should be a finite number"),
        ("guidance_scale", "1e400", "should be a finite number"),
        ("strength", "-Infinity", "should be a finite number"),
        ("refiner.start", "NaN", "should be a finite number"),
        ("width", "NaN", ""),
        ("width", "1e400", ""),
    ],
)
@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.jsonl"])
def test_a_number_out_of_bounds_is_refused_in_each_kind_of_file(
    tmp_path: Path, name: str, field: str, value: str, reason: str
) -> None:
    sign = "\t" if name == "a.tsv" else ","
    table = f"prompt{sign}{field}\na{sign}{value}\n"
    bad = one_bad(tmp_path / name, f'{{"prompt": "a", "{field}": {value}}}' if name == "a.jsonl" else table)
    assert bad.column == field
    assert reason in bad.reason


def test_a_prompt_of_20_001_characters_is_refused_and_one_of_20_000_is_read(tmp_path: Path) -> None:
    good, bad = read(tmp_path / "a.txt", f"{'🦊' * MAX_PROMPT_CHARACTERS}\n{'x' * (MAX_PROMPT_CHARACTERS + 1)}\n")
    assert isinstance(good, Row)
    assert len(good.spec.prompt) == 20_000
    assert str(bad).endswith("should have at most 20000 characters")
    assert "(20001 characters)" in str(bad)


def test_control_characters_and_marks_of_direction_are_kept_as_text(tmp_path: Path) -> None:
    text = STORABLE_CHARACTERS
    [row] = read(tmp_path / "a.jsonl", json.dumps({"prompt": text, "Note": text, "negative_prompt": text}))
    assert isinstance(row, Row)
    assert (row.spec.prompt, row.spec.negative_prompt, row.meta) == (text, text, {"Note": text})
    cell = text.replace("\n", "").replace("\r", "").replace("\t", "")
    [row] = read(tmp_path / "a.tsv", f"Prompt\tNote\n{cell}\t{cell}\n")
    assert isinstance(row, Row)
    assert (row.spec.prompt, row.meta) == (cell, {"Note": cell})


# Encodings and ends of lines


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.jsonl", "a.txt"])
def test_utf_8_and_utf_16_that_says_so_are_the_same_rows(tmp_path: Path, name: str, encoding: str) -> None:
    line = '{"prompt": "%s"}' if name == "a.jsonl" else "%s"
    lines = ["Prompt"] if name in ("a.tsv", "a.csv") else []
    lines += [line % "ein Fuchs, \u96ea \U0001f98a \u0a0a".replace(",", ""), "", line % "zwei"]
    text = "\ufeff" + "\r\n".join(lines) if encoding == "utf-16-be" else "\r\n".join(lines)
    rows = read(tmp_path / name, text.encode(encoding))
    assert [row.spec.prompt for row in rows if isinstance(row, Row)] == ["ein Fuchs \u96ea \U0001f98a \u0a0a", "zwei"]
    assert [row.line for row in rows] == [len(lines) - 2, len(lines)]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_that_does_not_say_so_is_refused(tmp_path: Path, encoding: str) -> None:
    for name, text in (("a.tsv", "Prompt\na\n"), ("a.jsonl", '{"prompt": "a"}\n'), ("a.txt", "a cat\n")):
        assert "is UTF-16 without a byte order mark" in refusal(tmp_path / name, text.encode(encoding))


def test_a_broken_line_of_utf_16_is_bad_alone(tmp_path: Path) -> None:
    text = "\ufeffeins\nz\ud800wei\nd\0rei\nvier\n".encode("utf-16-le", "surrogatepass")
    rows = read(tmp_path / "a.txt", text + b"x")
    assert [type(row) for row in rows] == [Row, BadRow, BadRow, Row, BadRow]
    assert "contains half a surrogate pair ('\\ud800' at character 2)" in str(rows[1])
    assert "contains a NUL character" in str(rows[2])
    assert str(rows[4]).endswith("a.txt:5: the line ends in the middle of a character")


@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.jsonl", "a.txt"])
def test_mixed_ends_of_lines_are_read_and_counted(tmp_path: Path, name: str) -> None:
    line = '{"prompt": "%s"}' if name == "a.jsonl" else "%s"
    header = "Prompt\r\n" if name in ("a.tsv", "a.csv") else "\r\n"
    text = f"{header}{line % 'a'}\n\r\n{line % 'b'}\r\n\n{line % 'c'}"
    rows = read(tmp_path / name, text)
    assert [(row.line, row.spec.prompt) for row in rows if isinstance(row, Row)] == [(2, "a"), (4, "b"), (6, "c")]


# Quotes


@pytest.mark.parametrize(
    ("line", "num_lines"), [('x","y\n', 100_000), ("x" * 900 + '","y\n', 20_000)], ids=["short", "long"]
)
def test_quotes_that_are_never_closed_do_not_take_for_ever(tmp_path: Path, line: str, num_lines: int) -> None:
    """Every line opens a cell that is open a thousand lines later, whichever line one begins with."""
    began = time.process_time()
    said = refusal(tmp_path / "a.csv", "Prompt\n" + line * num_lines)
    assert "so many quotes up to here are not closed that this is no CSV file" in said
    assert time.process_time() - began < 20


# What is no text


def test_a_spreadsheet_is_refused_whatever_it_is_called(tmp_path: Path) -> None:
    for name in ("prompts.xlsx", "prompts.csv"):
        said = refusal(tmp_path / name, b"PK\x03\x04\x14\0")
        assert said.endswith("is a spreadsheet or another ZIP archive; save it as TSV, CSV or JSONL")


def test_a_prompt_may_begin_like_a_parquet_file(tmp_path: Path) -> None:
    for text in ("PAR1", "PAR1\n", "PAR16 lamps\n"):
        assert [type(row) for row in read(tmp_path / "a.txt", text)] == [Row]
