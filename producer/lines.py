"""Physical lines of a text file, one at a time and each of bounded size, so that no file can fill the memory."""

import codecs
from collections.abc import Iterator
from itertools import count
from typing import BinaryIO, Final, NamedTuple

MAX_LINE_BYTES: Final = 1_000_000


class Line(NamedTuple):
    """``text`` keeps its line end. ``flaw`` says what is wrong with it ("contains a NUL character"), else ""."""

    number: int
    text: str
    flaw: str


def read_lines(file: BinaryIO) -> Iterator[Line]:
    """The lines of the file, numbered from 1. A flawed line is named and does not end the reading."""
    for number in count(1):
        line = file.readline(MAX_LINE_BYTES + 1)
        if not line:
            return
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if len(line) > MAX_LINE_BYTES:
            _skip_rest(file, line)
            yield Line(number, "\n", "is longer than 1 MB")
        else:
            yield Line(number, *_decoded(line))


def _skip_rest(file: BinaryIO, line: bytes) -> None:
    while line and not line.endswith(b"\n"):
        line = file.readline(MAX_LINE_BYTES)


def _decoded(line: bytes) -> tuple[str, str]:
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        flaw = f"is not UTF-8 (0x{line[error.start]:02x} at byte {error.start + 1})"
        # What cannot be decoded becomes surrogates, so that the cells around it, and its own, can still be told apart.
        return line.decode(errors="surrogateescape"), flaw
    return text, "contains a NUL character" if "\0" in text else ""
