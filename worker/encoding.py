"""Pixels to the bytes of a PNG, WebP or JPEG file, and back. Pillow releases the GIL while it does either."""

import io
from typing import Any, Final

import numpy as np
from PIL import Image

from schemas.output import Output
from worker.watermark import Pixels

#: libwebp's effort for lossless files: 20 of 100 takes a bit over half the time of Pillow's 80, for the same size
_WEBP_EFFORT: Final = 20


def encoded(pixels: Pixels, output: Output, png_compress_level: int) -> bytes:
    """The file without metadata. ``pixels``: uint8 RGB of shape (height, width, 3). Equal pixels give equal bytes."""
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
