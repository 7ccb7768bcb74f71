"""Pictures to start from: which files are taken, and how they become pixels, on both sides alike.

As diffusers' ``load_image``: turned as EXIF says, then RGB. What that would change without a word is refused:
transparency, more than 8 bits, more than one frame.
"""

import io
import struct
from typing import Final

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from schemas.errors import InputFileError

_FORMATS: Final = ("PNG", "JPEG", "WEBP")
#: by Pillow's name of the format; MPO is a JPEG with more pictures behind it, as telephones write it
_SUFFIXES: Final = {"PNG": "png", "JPEG": "jpg", "MPO": "jpg", "WEBP": "webp"}
SUFFIXES: Final = tuple(dict.fromkeys(_SUFFIXES.values()))

#: of a spec's width and height
_MAX_SIDE: Final = 4096
#: of a colour of one pixel
_MAX_BITS: Final = 8
_MODES: Final = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA"})
#: EXIF's orientations that exchange width and height
_LYING: Final = frozenset({5, 6, 7, 8})
#: what Pillow raises for files that are broken, or made to do harm
_BROKEN: Final = (
    OSError, ValueError, SyntaxError, LookupError, TypeError, struct.error, Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)  # fmt: skip


def picture_header(content: bytes) -> tuple[str, tuple[int, int]]:
    """The suffix for files of this format, and (width, height) in pixels after EXIF's orientation.

    Pillow decodes a PNG whose orientation does not stand before its pixels, for it may stand behind them.

    Raises:
        InputFileError: not a picture that can be taken. The message is a reason that follows a name.
    """
    with _opened(content) as image:
        try:
            orientation = image.getexif().get(ExifTags.Base.Orientation)
        except _BROKEN as error:
            raise InputFileError(f"cannot be read: {error}") from None
        width, height = image.size
        return _SUFFIXES[str(image.format)], (height, width) if orientation in _LYING else (width, height)


def decoded_picture(content: bytes) -> Image.Image:
    """The picture, upright, in RGB. Raises as ``picture_header``."""
    with _opened(content) as image:
        try:
            upright = ImageOps.exif_transpose(image)
            if _shows_through(upright):
                raise InputFileError("has transparent parts; put it on a background")
            return upright.convert("RGB")
        except _BROKEN as error:
            raise InputFileError(f"cannot be decoded: {error}") from None


def _opened(content: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(content), formats=_FORMATS)
    except UnidentifiedImageError:
        raise InputFileError("is no PNG, JPEG or WebP") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputFileError(f"has sides of more than {_MAX_SIDE} pixels") from None
    except _BROKEN as error:
        raise InputFileError(f"cannot be read: {error}") from None
    if flaw := _flaw(image, content):
        image.close()
        raise InputFileError(flaw)
    return image


def _flaw(image: Image.Image, content: bytes) -> str | None:
    if max(image.size) > _MAX_SIDE:
        return f"is {image.width} x {image.height} pixels; {_MAX_SIDE} are the most on a side"
    if image.format == "PNG":
        if content[12:16] != b"IHDR":
            return "cannot be read: its IHDR does not stand first"
        if (num_bits := content[24]) > _MAX_BITS:  # Pillow opens all but grey ones as if they had 8
            return f"has {num_bits} bits for each colour; save it as RGB with 8 bits"
    if image.mode not in _MODES:
        return f"has colours of the kind {image.mode}; save it as RGB with 8 bits"
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        return "has more than one frame"
    return None


def _shows_through(image: Image.Image) -> bool:
    if not image.has_transparency_data:
        return False
    return image.convert("RGBA").getchannel("A").tobytes().strip(b"\xff") != b""
