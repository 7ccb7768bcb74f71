"""A manifest out of a pipe: `nightshift submit - --format jsonl`."""

import gzip
import io
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from producer.manifests.manifest import ReadOptions, Row, read_manifest
from producer.manifests.manifest_source import STDIN, ManifestSource
from schemas.errors import ManifestError


class Pipe:
    """What stands behind standard input."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.opened = ExitStack()

    def give(self, *pieces: bytes) -> None:
        """Each is one read at the most."""
        reading, writing = os.pipe()

        def write() -> None:
            with open(writing, "wb", buffering=0) as stream:
                for piece in pieces:
                    stream.write(piece)

        writer = threading.Thread(target=write)
        writer.start()
        self.opened.callback(writer.join)
        self._monkeypatch.setattr(sys, "stdin", self.opened.enter_context(open(reading, encoding="utf-8")))  # noqa: SIM115


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipe]:
    pipe = Pipe(monkeypatch)
    with pipe.opened:
        yield pipe


def read(content_format: str = "jsonl") -> list[str]:
    rows = read_manifest(ManifestSource.parse(STDIN, content_format), ReadOptions())
    return [row.spec.prompt if isinstance(row, Row) else str(row) for row in rows]


def refusal(content_format: str = "jsonl") -> str:
    with pytest.raises(ManifestError) as error:
        read(content_format)
    assert str(error.value).isprintable()
    return str(error.value)


def submitted(home: Path, *arguments: str, **given: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "nightshift", "submit", *arguments, "--pair", "tiny"]
    environment = {**os.environ, "NIGHTSHIFT_HOME": str(home)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, **given)  # type: ignore[call-overload, no-any-return]


def test_rows_come_out_of_a_pipe_in_whatever_pieces(pipe: Pipe) -> None:
    pipe.give(b"{", b'"prompt": "a fo', b'x"}\n{"prompt"', b": 5}\n")
    assert read() == ["a fox", 'standard input:2: column "prompt": "5": should be a valid string']


@pytest.mark.parametrize("content_format", ["txt", "csv", "tsv"])
def test_each_text_may_be_piped(pipe: Pipe, content_format: str) -> None:
    pipe.give(*([b"a fox\n"] if content_format == "txt" else [b"prompt\n", b"a fox\n"]))
    assert read(content_format) == ["a fox"]


def test_what_is_compressed_is_known_by_its_first_bytes(pipe: Pipe) -> None:
    content = gzip.compress(b"a fox\na cat\n")
    pipe.give(content[:1], content[1:])
    assert read("txt") == ["a fox", "a cat"]


def test_reading_from_a_file_begins_where_the_file_was_read_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a comment\na fox\n")
    with open(tmp_path / "a", "rb") as stream:
        stream.readline()
        with io.TextIOWrapper(stream) as text:
            monkeypatch.setattr(sys, "stdin", text)
            assert read("txt") == ["a fox"]


def test_a_format_must_be_given() -> None:
    with pytest.raises(ManifestError, match="standard input has no name that tells its format; say it: --format jsonl"):
        ManifestSource.parse(STDIN)


def test_parquet_and_what_is_no_text_is_refused(pipe: Pipe) -> None:
    assert "standard input is read from front to end, and Parquet begins at its end" in refusal("parquet")
    pipe.give(b"PAR1\x15\x04")
    assert "standard input is Parquet" in refusal()
    pipe.give()
    assert "standard input has no rows" in refusal()


def test_a_closed_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert refusal() == "standard input is closed; pipe a manifest into it"


def test_submit_takes_a_manifest_out_of_a_pipe_and_calls_the_batch_stdin(tmp_path: Path) -> None:
    done = submitted(tmp_path, STDIN, "--format", "jsonl", input='{"prompt": "a fox", "width": 64, "height": 64}\n')
    assert done.returncode == 0, done.stderr
    assert done.stdout == "batch 1: 1 job accepted (stdin, tiny)\n"


def test_a_batch_name_moves_no_cursor_and_turns_no_text(tmp_path: Path) -> None:
    done = submitted(tmp_path, STDIN, "--format", "txt", "--name", "\u202ecats", input="a fox\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "batch 1: 1 job accepted (\\u202ecats, tiny)\n"


def test_nobody_waits_for_a_terminal(tmp_path: Path) -> None:
    ours, its = pty.openpty()
    try:
        done = submitted(tmp_path, STDIN, "--format", "tsv", stdin=its)
    finally:
        os.close(ours)
        os.close(its)
    assert done.returncode == 2
    assert done.stderr == (
        "nightshift: standard input is a terminal; pipe a manifest into it, or name a file instead of -\n"
    )
