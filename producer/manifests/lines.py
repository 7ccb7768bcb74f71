"""Physical lines of a text file, one at a time and each of bounded size, so that no file can fill the memory."""

import codecs
import io
from collections.abc import Iterator
from itertools import count
from typing import BinaryIO, Final, NamedTuple

from schemas.fields import text_flaw

MAX_LINE_BYTES: Final = 1_000_000

_MAX_UTF16_CHARACTERS: Final = MAX_LINE_BYTES // 2
_TOO_LONG: Final = "is longer than 1 MB"


class Line(NamedTuple):
    """``text`` keeps its line end. ``flaw`` says what is wrong with it ("contains a NUL character"), else ""."""

    number: int
    text: str
    flaw: str


def read_lines(file: BinaryIO) -> Iterator[Line]:
    """The lines of a file in UTF-8, numbered from 1. A flawed line is named and does not end the reading."""
    for number in count(1):
        line = file.readline(MAX_LINE_BYTES + 1)
        if not line:
            return
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if len(line) > MAX_LINE_BYTES:
            _skip_rest(file, line)
            yield Line(number, "\n", _TOO_LONG)
        else:
            text, flaw = _decoded(line)
            yield Line(number, text, flaw)


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


def utf16_text(file: BinaryIO) -> io.TextIOWrapper:
    """A file in UTF-16 that begins with its byte order mark, for ``read_utf16_lines``."""
    return io.TextIOWrapper(file, "utf-16", errors="surrogatepass", newline="\n")


def read_utf16_lines(text: io.TextIOWrapper) -> Iterator[Line]:
    """The same of ``utf16_text``."""
    for number in count(1):
        try:
            line = text.readline(_MAX_UTF16_CHARACTERS + 1)
            too_long = len(line) > _MAX_UTF16_CHARACTERS
            while len(line) > _MAX_UTF16_CHARACTERS and not line.endswith("\n"):
                line = text.readline(_MAX_UTF16_CHARACTERS + 1)
        except UnicodeDecodeError:
            yield Line(number, "\n", "ends in the middle of a character")
            return
        if too_long:
            yield Line(number, "\n", _TOO_LONG)
        elif line:
            yield Line(number, line, text_flaw(line) or "")
        else:
            return
