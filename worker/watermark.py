"""The invisible watermark of SDXL: diffusers' 48 bits, put in and read back by the stock ``invisible-watermark``.

Source of the bits: Stability AI's generative-models, as in diffusers' ``StableDiffusionXLWatermarker``.
"""

from typing import Final

import numpy as np
from imwatermark import WatermarkDecoder, WatermarkEncoder
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

WATERMARK_BITS: Final = tuple(int(bit) for bit in f"{0b101100111110110010010000011110111011000110011110:048b}")
_METHOD: Final = "dwtDct"
_SMALLEST_AREA: Final = 256 * 256  # the stock encoder refuses less


def has_room(pixels: Pixels) -> bool:
    """Whether the picture is large enough to carry the mark."""
    return pixels.shape[0] * pixels.shape[1] >= _SMALLEST_AREA


def put_watermark(pixels: Pixels) -> Pixels:
    """The marked picture. uint8 RGB of shape (height, width, 3), as is what it returns."""
    encoder = WatermarkEncoder()
    encoder.set_watermark("bits", list(WATERMARK_BITS))
    marked: Pixels = encoder.encode(_swapped(pixels), _METHOD)
    return _swapped(marked)


def num_bits_read(pixels: Pixels) -> int:
    """How many of the 48 bits the stock decoder reads back from uint8 RGB pixels."""
    read = WatermarkDecoder("bits", len(WATERMARK_BITS)).decode(_swapped(pixels), _METHOD)
    return sum(int(bit) == wanted for bit, wanted in zip(read, WATERMARK_BITS, strict=True))


def _swapped(pixels: Pixels) -> Pixels:
    """RGB to BGR, which the stock code expects, or back."""
    return np.ascontiguousarray(pixels[:, :, ::-1])
