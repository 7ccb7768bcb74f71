"""What an image file says of itself, read from PNG, WebP and JPEG: A1111's text, Nightshift's record, the source type.

Where they stand (``worker.image_files.containers`` puts them there):

==============  ==================================  =====================================  ===========================
                PNG                                 JPEG                                   WebP
==============  ==================================  =====================================  ===========================
A1111's text    text ``parameters``                 EXIF UserComment                       EXIF UserComment
record (JSON)   text ``nightshift``                 comments that begin ``nightshift:``    EXIF ImageDescription
XMP             text ``XML:com.adobe.xmp``          APP1                                   chunk ``XMP``
==============  ==================================  =====================================  ===========================

Only headers are read, no pixels are decoded. The XMP is searched by a regular expression and not parsed as XML, so that
nothing in it is expanded or fetched.
"""

import io
import json
import re
import struct
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Final, NoReturn

from PIL import ExifTags, Image

from schemas.errors import InputError, NotFoundError, StorageError
from schemas.nesting import nesting

PARAMETERS_KEY: Final = "parameters"
RECORD_KEY: Final = "nightshift"
XMP_KEY: Final = "XML:com.adobe.xmp"
#: what a JPEG comment begins with that holds a piece of the record
COMMENT_PREFIX: Final = b"nightshift:"
#: A file of 4096 x 4096 pixels without any compression has 50 MB; a WebP is read whole before it is looked at.
MAX_FILE_BYTES: Final = 200_000_000
#: A line of a manifest has at most a megabyte, and each of its characters at most six times as many in ASCII.
MAX_RECORD_CHARACTERS: Final = 8_000_000
#: of the record's lists and objects; its own have four levels
MAX_RECORD_NESTING: Final = 32
#: EXIF's name for UTF-16; big-endian, as A1111 and whoever reads its files have it
UNICODE_PREFIX: Final = b"UNICODE\0"

_FORMATS: Final = {"PNG": "png", "WEBP": "webp", "JPEG": "jpeg", "MPO": "jpeg"}  # MPO: a JPEG with more in it
#: What Pillow raises at a file that is damaged, or made to do damage. The second line is what it expects itself.
UNREADABLE: Final = (
    OSError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning,
    SyntaxError, LookupError, TypeError, struct.error,
)  # fmt: skip
_SOURCE_TYPE: Final = re.compile(
    rb"""DigitalSourceType(?:\s*+=\s*+|>|\s++rdf:resource\s*+=\s*+)["']?\s*+([^"'<>\s]{1,400}+)"""
)


@dataclass(frozen=True)
class ImageFile:
    """What one file says. ``format``: as in ``schemas.output``. Width and height are pixels.

    ``parameters``, ``record`` and ``digital_source_type`` are None where the file has none.
    """

    name: str
    format: str
    width: int
    height: int
    parameters: str | None
    record: dict[str, Any] | None
    digital_source_type: str | None

    def nightshift_record(self) -> dict[str, Any]:
        """The record. Raises InputError where there is none: the file was made otherwise, or stripped."""
        if self.record is None:
            raise InputError(
                f"{self.name} carries no record of Nightshift: it was made otherwise, or has lost it since"
            )
        return self.record


def read_image_file(path: Path) -> ImageFile:
    """
    Raises:
        NotFoundError: there is no such file.
        StorageError: the disk refuses to read it.
        InputError: it is no PNG, WebP or JPEG, or its record is broken.
    """
    try:
        if not path.exists():
            raise NotFoundError(f"there is no file {path}")
        if not path.is_file():
            raise InputError(f"{path} is no file; name the images in it")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f"{path} has more than {MAX_FILE_BYTES:,} bytes, which no image of Nightshift has")
        with path.open("rb") as stream:
            return _image_file(stream, str(path))
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error


def parse_image_file(content: bytes, name: str) -> ImageFile:
    """As ``read_image_file``, from the file's bytes. ``name``: what errors call it."""
    return _image_file(io.BytesIO(content), name)


def _image_file(stream: IO[bytes], name: str) -> ImageFile:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it thinks of odd EXIF
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(stream, formats=("PNG", "WEBP", "JPEG")) as image:
                parameters, record, xmp = _texts(image)
                found = ImageFile(
                    name=name,
                    format=_FORMATS[image.format or ""],
                    width=image.width,
                    height=image.height,
                    parameters=parameters,
                    record=None,
                    digital_source_type=_source_type(xmp),
                )
    except UNREADABLE as error:
        raise InputError(f"{name} is no PNG, WebP or JPEG that can be read") from error
    return found if record is None else _with_record(found, record)


def _texts(image: Image.Image) -> tuple[str | None, str | bytes | None, bytes]:
    """A1111's text, the record's JSON, and the XMP packet."""
    info = image.info
    if image.format == "PNG":
        return _text(info.get(PARAMETERS_KEY)), _text(info.get(RECORD_KEY)), _bytes(info.get("xmp"))
    exif = image.getexif()
    comment = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
    if image.format == "WEBP":
        record = _text(exif.get(ExifTags.Base.ImageDescription))
        return _user_comment(comment), record if record and record.startswith("{") else None, _bytes(info.get("xmp"))
    return _user_comment(comment), _comments(image), _bytes(info.get("xmp"))


def _text(value: object) -> str | None:
    return str(value) if isinstance(value, str) else None


def _bytes(value: object) -> bytes:
    return value.encode(errors="replace") if isinstance(value, str) else value if isinstance(value, bytes) else b""


def _user_comment(comment: object) -> str | None:
    if not isinstance(comment, bytes) or not comment.startswith(UNICODE_PREFIX):
        return None
    return comment.removeprefix(UNICODE_PREFIX).decode("utf-16-be", "replace")


def _comments(image: Image.Image) -> bytes | None:
    """The pieces of the record, joined. Comments of other programs are not looked at."""
    segments = getattr(image, "applist", ())
    pieces = [content for kind, content in segments if kind == "COM" and content.startswith(COMMENT_PREFIX)]
    return b"".join(piece.removeprefix(COMMENT_PREFIX) for piece in pieces) if pieces else None


def _source_type(xmp: bytes) -> str | None:
    """The value of ``Iptc4xmpExt:DigitalSourceType``, written as an attribute, an element, or a resource."""
    found = _SOURCE_TYPE.search(xmp)
    return found[1].decode(errors="replace") if found else None


def _with_record(file: ImageFile, text: str | bytes) -> ImageFile:
    if len(text) > MAX_RECORD_CHARACTERS:
        raise InputError(f"the record in {file.name} has more than {MAX_RECORD_CHARACTERS:,} characters")
    try:
        record = json.loads(text, parse_constant=_no_number)
        json.dumps(record, ensure_ascii=False, allow_nan=False).encode()  # half a surrogate pair could not be printed
    except (ValueError, RecursionError) as error:
        raise InputError(f"the record in {file.name} is broken: it is no JSON in whole characters") from error
    if nesting(record) > MAX_RECORD_NESTING:
        raise InputError(f"the record in {file.name} is broken: it has more than {MAX_RECORD_NESTING} levels")
    if not isinstance(record, dict) or not isinstance(record.get("nightshift"), int):
        raise InputError(f"the record in {file.name} is broken: it is no object with its version as nightshift")
    return replace(file, record=record)


def _no_number(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")
