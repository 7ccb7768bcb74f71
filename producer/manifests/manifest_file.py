"""A manifest's file: opened, refused by its first bytes where it is not what it is called, and read line by line.

Text is UTF-8, or UTF-16 that says so by a byte order mark; compressed or not. Whatever the file is called, what is
binary is refused by what it begins with. Reads standard input where the manifest is ``-``.
"""

import codecs
import io
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from producer.manifests.decompression import PLAIN, compression_of, decompressed
from producer.manifests.lines import Line, read_lines, read_utf16_lines, utf16_text
from producer.manifests.manifest_format import COMPRESSIONS, ManifestFormat, unknown_format
from producer.manifests.manifest_source import STDIN, Place, place_name, place_tail
from producer.manifests.remote_file import opened_url
from schemas.errors import ManifestError, MissingManifestError
from schemas.printable import printable

_HEAD_BYTES: Final = 5
_BUFFER_BYTES: Final = 1 << 17
_UTF16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_UTF32: Final = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
_TEXT_INSTEAD: Final = "save it as TSV, CSV or JSONL"


@dataclass(frozen=True)
class ManifestFile:
    """One file of a manifest; most have one."""

    place: Place
    told: ManifestFormat

    @property
    def name(self) -> str:
        """Printable, and without secrets."""
        return place_name(self.place)


@contextmanager
def manifest_lines(file: ManifestFile) -> Iterator[Iterator[Line]]:
    """The lines of a text, while it is open.

    Raises:
        ManifestError: the file cannot be read, or is no manifest by its first bytes or its name.
    """
    with ExitStack() as opened, said_of(file.name):
        packed_head, stream = _with_head(opened.enter_context(opened_bytes(file.place)))
        compression = _checked_compression(file, packed_head)
        if compression != PLAIN:
            stream = opened.enter_context(decompressed(stream, compression, file.name))
        head, stream = _with_head(stream)
        if flaw := _no_text(head):
            within = "" if compression == PLAIN else f"holds what {compression} has compressed, and that "
            raise ManifestError(f"{file.name} {within}{flaw}")
        if file.told.content is None:
            raise ManifestError(f"{file.name}: {printable(unknown_format(place_tail(file.place)))}")
        if head.startswith(_UTF16):
            yield read_utf16_lines(opened.enter_context(utf16_text(stream)))
        else:
            yield read_lines(stream)


@contextmanager
def opened_bytes(place: Place) -> Iterator[BinaryIO]:
    """What lies there, while it is open.

    Raises:
        OSError: of a local file.
        ManifestError, StorageError: standard input has nothing to give, or a URL; while it is read, too.
    """
    if place == STDIN:
        yield _standard_input()
        return
    with open(place, "rb") if isinstance(place, Path) else opened_url(place) as file:
        yield file


def _standard_input() -> BinaryIO:
    """Nobody is waited for who does not know that he should type."""
    if sys.stdin is None or sys.stdin.closed:
        raise ManifestError("standard input is closed; pipe a manifest into it")
    if sys.stdin.isatty():
        raise ManifestError("standard input is a terminal; pipe a manifest into it, or name a file instead of -")
    return sys.stdin.buffer


@contextmanager
def said_of(name: str) -> Iterator[None]:
    """What the disk says against reading the file, as one sentence. Raises ManifestError."""
    try:
        yield
    except FileNotFoundError:
        raise MissingManifestError(f"there is no file {name}") from None
    except IsADirectoryError:
        raise ManifestError(f"{name} is a folder; a manifest is one file") from None
    except OSError as error:
        raise ManifestError(f"cannot read {name}: {error.strerror or error}") from error


def _with_head(file: BinaryIO) -> tuple[bytes, BinaryIO]:
    """Its first bytes, and all of it: a pipe gives them in as many pieces as it likes."""
    beginning = file.tell() if file.seekable() else None
    head = file.read(_HEAD_BYTES)
    if beginning is not None:
        file.seek(beginning)
        return head, file
    return head, io.BufferedReader(_Rejoined(head, file), _BUFFER_BYTES)


class _Rejoined(io.RawIOBase):
    """A stream of which the head was read, whole again."""

    def __init__(self, head: bytes, rest: Any) -> None:
        self._head = head
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._head or self._rest.read1(len(buffer))
        self._head = b""
        buffer[: len(content)] = content
        return len(content)


def _checked_compression(file: ManifestFile, head: bytes) -> str:
    """How the file is compressed. Raises ManifestError where its name says otherwise."""
    found, told = compression_of(head), file.told.compression
    if told in (None, found):
        return found
    if found == PLAIN:
        what = "is empty" if not head else f"is not compressed by {told}"
        raise ManifestError(f"{file.name} {what}, and its name says that {told} compressed it")
    [suffix] = [suffix for suffix, compression in COMPRESSIONS.items() if compression == found]
    raise ManifestError(f"{file.name} is compressed by {found}, and its name does not say so; call it …{suffix}")


def _no_text(head: bytes) -> str:
    """What the file is instead, and what would be right; "" where it may be text."""
    if (compression := compression_of(head)) != PLAIN:
        return f"is compressed by {compression} once more; unpack it first"
    if _is_parquet(head):
        return "is Parquet; call it ….parquet, uncompressed, or say it: --format parquet"
    if head.startswith(b"PK\x03\x04"):
        return f"is a spreadsheet or another ZIP archive; {_TEXT_INSTEAD}"
    if head.startswith(_UTF32):
        return "is UTF-32; save it as UTF-8"
    if _is_bare_utf16(head):
        return "is UTF-16 without a byte order mark, so nothing says so; save it with one, or as UTF-8"
    return ""


def _is_parquet(head: bytes) -> bool:
    """A prompt may begin with PAR1, and goes on with a letter."""
    return head.startswith(b"PAR1") and b"" < head[4:] < b" " and head[4:] not in (b"\t", b"\r", b"\n")


def _is_bare_utf16(head: bytes) -> bool:
    """Every other byte of the first two letters is zero, as in no text in UTF-8."""
    zeros = [not byte for byte in head[:4]]
    return zeros in ([False, True, False, True], [True, False, True, False])
