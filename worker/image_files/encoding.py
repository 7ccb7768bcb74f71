"""Pixels to the bytes of a PNG, WebP or JPEG file and back: Pillow, and ``worker.image_files.png``.

The GIL is let go of for most of it. Copies of a whole picture or file keep it (``benchmarks/finish.py`` measures how
long), and Pillow's JPEG encoder does for each 64 KB of the file.
"""

import io
import warnings
from typing import Any, Final

import numpy as np
from PIL import Image

from farm.image_file import UNREADABLE
from farm.watermark import Pixels
from schemas.errors import InputError
from schemas.output import Output
from schemas.settings import QUICK_PNG
from worker.image_files.png import png

#: libwebp's effort for lossless files: 20 of 100 takes a bit over half the time of Pillow's 80, for the same size
_WEBP_EFFORT: Final = 20


def encoded(pixels: Pixels, output: Output, png_compress_level: int) -> bytes:
    """The file without metadata. ``pixels``: uint8 RGB of shape (height, width, 3). Equal pixels give equal bytes."""
    if output.format == "png" and png_compress_level == QUICK_PNG:
        return png(pixels)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, output.format, **_options(output, png_compress_level))
    return stream.getvalue()


def _options(output: Output, png_compress_level: int) -> dict[str, Any]:
    if output.format == "png":
        return {"compress_level": png_compress_level}
    if output.format == "jpeg":  # half the colours would be half of the watermark, which lies in them
        return {"quality": output.quality, "subsampling": "4:4:4"}
    return {"lossless": True, "quality": _WEBP_EFFORT} if output.quality is None else {"quality": output.quality}


def decoded(content: bytes) -> Pixels:
    """What a reader of the file sees: uint8 RGB of shape (height, width, 3)."""
    with Image.open(io.BytesIO(content), formats=("PNG", "WEBP", "JPEG")) as image:
        return np.asarray(image.convert("RGB"))


def decoded_file(content: bytes, name: str) -> Pixels:
    """As ``decoded``, of a file that may have changed since it was written. ``name``: what the error calls it.

    Raises:
        InputError: the file is damaged, cut off, or no image at all.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow thinks of odd EXIF
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return decoded(content)
    except UNREADABLE as error:
        raise InputError(f"{name} is damaged or cut off: its pixels cannot be decoded") from error
