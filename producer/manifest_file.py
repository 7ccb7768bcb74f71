"""A manifest's file: opened, refused by its first bytes where it is no text, and read line by line.

Text is UTF-8, or UTF-16 that says so by a byte order mark. Whatever the file is called, what is compressed or binary is
refused by what it begins with, and nothing of it is unpacked.
"""

import codecs
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from producer.lines import Line, read_lines, read_utf16_lines, utf16_text
from schemas.errors import ManifestError, MissingManifestError
from schemas.printable import printable

SUFFIXES: Final = (".tsv", ".csv", ".jsonl", ".txt")

_HEAD_BYTES: Final = 5
_UTF16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_UTF32: Final = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
_TEXT_INSTEAD: Final = "save it as TSV, CSV or JSONL"


@contextmanager
def manifest_lines(path: Path) -> Iterator[Iterator[Line]]:
    """The lines, while the file is open.

    Raises:
        ManifestError: the file cannot be read, or is no manifest by its first bytes or its suffix.
    """
    name = printable(str(path))
    try:
        with ExitStack() as opened:
            file = opened.enter_context(open(path, "rb"))
            head = file.peek(_HEAD_BYTES)[:_HEAD_BYTES]
            if flaw := _no_text(head):
                raise ManifestError(f"{name} {flaw}")
            if path.suffix.lower() not in SUFFIXES:
                suffix = printable(path.suffix)
                raise ManifestError(f'{name}: unknown suffix "{suffix}"; manifests are {", ".join(SUFFIXES)}')
            if head.startswith(_UTF16):
                yield read_utf16_lines(opened.enter_context(utf16_text(file)))
            else:
                yield read_lines(file)
    except FileNotFoundError:
        raise MissingManifestError(f"there is no file {name}") from None
    except IsADirectoryError:
        raise ManifestError(f"{name} is a folder; a manifest is one file") from None
    except OSError as error:
        raise ManifestError(f"cannot read {name}: {error.strerror}") from error


def _no_text(head: bytes) -> str:
    """What the file is instead, and what would be right; "" where it may be text."""
    if head.startswith(b"\x1f\x8b"):
        return "is compressed by gzip; unpack it first: gunzip"
    if head.startswith(b"PAR1") and b"" < head[4:] < b" " and head[4:] not in (b"\t", b"\r", b"\n"):
        return f"is Parquet, which is not read; {_TEXT_INSTEAD}"
    if head.startswith(b"PK\x03\x04"):
        return f"is a spreadsheet or another ZIP archive; {_TEXT_INSTEAD}"
    if head.startswith(_UTF32):
        return "is UTF-32; save it as UTF-8"
    if _is_bare_utf16(head):
        return "is UTF-16 without a byte order mark, so nothing says so; save it with one, or as UTF-8"
    return ""


def _is_bare_utf16(head: bytes) -> bool:
    """Every other byte of the first two letters is zero, as in no text in UTF-8."""
    zeros = [not byte for byte in head[:4]]
    return zeros in ([False, True, False, True], [True, False, True, False])
