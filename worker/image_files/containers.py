"""Puts metadata into the file that an encoder wrote, without touching its pixels: PNG, WebP, JPEG.

``farm.image_file`` has the table of what stands where, and reads it. EXIF and comments have no encoding that readers
agree on, so JSON goes there in ASCII.

Sources: the PNG specification, ISO/IEC 10918-1 (JPEG), EXIF 2.32, RFC 9649 (WebP), XMP part 3, and A1111's way with
UserComment (``piexif.helper``: big-endian UTF-16 without a byte order mark).
"""

import io
import json
import struct
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo, putchunk

from farm.image_file import COMMENT_PREFIX, PARAMETERS_KEY, RECORD_KEY, UNICODE_PREFIX, XMP_KEY
from schemas.output import Output

_BLOCK_BYTES: Final = 1 << 18
_PNG_HEADER_BYTES: Final = 33  # signature and IHDR, after which text may come
_MARKER_BYTES: Final = 65_533  # the most that a JPEG segment holds
_EXIF_HEADER: Final = b"Exif\0\0"
_XMP_HEADER: Final = b"http://ns.adobe.com/xap/1.0/\0"
_HAS_EXIF, _HAS_XMP = 0x08, 0x04  # of WebP


class Metadata(NamedTuple):
    """What a file says of itself: A1111's text, the record, the XMP packet."""

    parameters: str
    record: dict[str, Any]
    xmp: str

    @property
    def ascii_record(self) -> str:
        return json.dumps(self.record, sort_keys=True)


def with_metadata(content: bytes, output: Output, metadata: Metadata) -> bytes:
    """The file with the metadata in it. ``content``: as ``worker.image_files.encoding.encoded`` made it.

    A JPEG's EXIF ends at 64 KB. Where A1111's text does not fit, about 32,700 characters, the file goes without it: the
    record has all that it says.
    """
    if output.format == "png":
        return _png(content, metadata)
    return _jpeg(content, metadata) if output.format == "jpeg" else _webp(content, metadata)


def _png(content: bytes, metadata: Metadata) -> bytes:
    info = PngInfo()
    info.add_text(PARAMETERS_KEY, metadata.parameters)
    info.add_itxt(RECORD_KEY, json.dumps(metadata.record, sort_keys=True, ensure_ascii=False))
    info.add_itxt(XMP_KEY, metadata.xmp)
    texts = io.BytesIO()
    for kind, data, _ in info.chunks:
        putchunk(texts, kind, data)
    return b"".join([content[:_PNG_HEADER_BYTES], texts.getvalue(), *_blocks(content, _PNG_HEADER_BYTES)])


def _blocks(content: bytes, start: int) -> Iterator[bytes]:
    """From a place on. One slice of a large file would be a copy that keeps the GIL for its whole length; joining bytes
    lets go of it."""
    for place in range(start, len(content), _BLOCK_BYTES):
        yield content[place : place + _BLOCK_BYTES]


def _jpeg(content: bytes, metadata: Metadata) -> bytes:
    (jfif_bytes,) = struct.unpack_from(">H", content, 4)  # after SOI and JFIF's marker, which come first in any file
    start = 4 + jfif_bytes
    return b"".join([content[:start], *_segments(metadata), *_blocks(content, start)])


def _segments(metadata: Metadata) -> Iterator[bytes]:
    exif = _EXIF_HEADER + _exif(metadata.parameters)
    if len(exif) <= _MARKER_BYTES:
        yield _segment(0xE1, exif)
    yield _segment(0xE1, _XMP_HEADER + metadata.xmp.encode())
    record, room = metadata.ascii_record.encode(), _MARKER_BYTES - len(COMMENT_PREFIX)
    for start in range(0, len(record), room):
        yield _segment(0xFE, COMMENT_PREFIX + record[start : start + room])


def _segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def _webp(content: bytes, metadata: Metadata) -> bytes:
    """The simple file that the encoder wrote has one chunk; with metadata there is an extended header before it."""
    with Image.open(io.BytesIO(content), formats=("WEBP",)) as image:
        canvas = [(side - 1).to_bytes(3, "little") for side in image.size]
    chunks = [
        _chunk(b"VP8X", bytes([_HAS_EXIF | _HAS_XMP, 0, 0, 0]) + b"".join(canvas)),
        content[12:],
        _chunk(b"EXIF", _exif(metadata.parameters, metadata.ascii_record)),
        _chunk(b"XMP ", metadata.xmp.encode()),
    ]
    return _chunk(b"RIFF", b"WEBP" + b"".join(chunks))


def _chunk(kind: bytes, payload: bytes) -> bytes:
    return kind + struct.pack("<I", len(payload)) + payload + b"\0" * (len(payload) % 2)


def _exif(parameters: str, description: str | None = None) -> bytes:
    """Big-endian, so that readers which take UserComment in the file's byte order read what A1111's do."""
    exif = Image.Exif()
    exif.endian = ">"
    if description is not None:
        exif[ExifTags.Base.ImageDescription] = description
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.UserComment: UNICODE_PREFIX + parameters.encode("utf-16-be")}
    return exif.tobytes().removeprefix(_EXIF_HEADER)
