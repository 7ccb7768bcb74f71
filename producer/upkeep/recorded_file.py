"""Whether an image file is the one that the ledger records: there, whole, decodable, pixels and watermark as then."""

import hashlib
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from PIL import Image

from farm.image_file import UNREADABLE
from farm.store_keys import store_key
from farm.stored_files import check_has_files, read_at_most
from producer.upkeep.finding import RESTORE_FILE, RESTORE_LEDGER, Finding
from schemas.records import StoredImage

_PILLOW_FORMATS: Final = {"png": "PNG", "webp": "WEBP", "jpeg": "JPEG"}
_KEY: Final = re.compile(r"[0-9a-f]{2}/[0-9a-f]{2}/[^/]+$")

#: how many of the watermark's bits can be read from an RGB picture
WatermarkReader = Callable[[Image.Image], int]


@dataclass(frozen=True)
class RecordedFile(StoredImage):
    """A row of ``images``. ``name``: of the job that it is read for. ``watermark_bits``: None where none was put in.

    ``lossless``: the file gives back the very pixels that ``pixel_sha256`` is of.
    """

    name: str
    image_id: int
    lossless: bool
    watermark_bits: int | None


class _FlawError(Exception):
    """What is wrong with a file: code and sentence."""


def watermark_reader() -> WatermarkReader | None:
    """None where NumPy or OpenCV is missing: all other checks do without them."""
    try:
        import numpy as np  # noqa: PLC0415

        from farm.watermark import num_bits_read  # noqa: PLC0415
    except ImportError:
        return None
    return lambda picture: num_bits_read(np.asarray(picture))


def file_finding(file: RecordedFile, read_watermark: WatermarkReader | None) -> Finding | None:
    """The first thing that is wrong with the file; None where nothing is.

    Raises:
        StorageError: the whole store is not there, or does not answer.
        SettingsError: it is of a kind that fsspec does not know, or lacks a package for.
    """
    try:
        _check_row(file)
        picture = _decoded(_content(file), file)
        _check_picture(picture, file, read_watermark)
    except _FlawError as flaw:
        code, sentence = flaw.args
        return Finding(file.name, code, f"{file.uri} {sentence}")
    return None


def _check_row(file: RecordedFile) -> None:
    key = _KEY.search(file.uri)
    if key is None or store_key(key[0]).sha256 != file.sha256 or file.format not in _PILLOW_FORMATS:
        raise _FlawError("image_row", f"is no place for a {file.format} of sha256 {file.sha256}; {RESTORE_LEDGER}")


def _content(file: RecordedFile) -> bytes:
    try:
        content = read_at_most(file.uri, file.size_bytes + 1)
    except FileNotFoundError:
        check_has_files(file.uri)
        raise _FlawError("missing", f"is missing; {RESTORE_FILE}") from None
    except OSError as error:
        check_has_files(file.uri)
        raise _FlawError(
            "unreadable", f"cannot be read: {error.strerror or error}; mend that and verify again"
        ) from None
    if len(content) < file.size_bytes:
        raise _FlawError("size", f"is cut off at {len(content):,} of {file.size_bytes:,} bytes; {RESTORE_FILE}")
    if len(content) > file.size_bytes:
        raise _FlawError("size", f"is longer than the {file.size_bytes:,} bytes that were recorded; {RESTORE_FILE}")
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise _FlawError("sha256", f"has other bytes than were recorded; {RESTORE_FILE}")
    return content


def _decoded(content: bytes, file: RecordedFile) -> Image.Image:
    """RGB. The size is looked at first: nothing larger than was recorded is decoded."""
    try:
        with Image.open(io.BytesIO(content), formats=[_PILLOW_FORMATS[file.format]]) as picture:
            if picture.size != (file.width, file.height):
                sizes = f"{picture.width} x {picture.height} pixels, and {file.width} x {file.height} are recorded"
                raise _FlawError("dimensions", f"has {sizes}; {RESTORE_LEDGER}")
            return picture.convert("RGB")
    except UNREADABLE as error:
        raise _FlawError("undecodable", f"is no {file.format} that can be decoded: {error}; {RESTORE_FILE}") from None


def _check_picture(picture: Image.Image, file: RecordedFile, read_watermark: WatermarkReader | None) -> None:
    if file.lossless and hashlib.sha256(picture.tobytes()).hexdigest() != file.pixel_sha256:
        raise _FlawError("pixels", f"has other pixels than were recorded; {RESTORE_LEDGER}")
    if read_watermark is None or file.watermark_bits is None:
        return
    if (num_bits := read_watermark(picture)) != file.watermark_bits:
        bits = f"{num_bits} bits of the watermark can be read, and {file.watermark_bits} are recorded"
        raise _FlawError("watermark", f"is not marked as recorded: {bits}; {RESTORE_LEDGER}")
