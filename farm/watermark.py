"""The invisible watermark of SDXL: diffusers' 48 bits, put in and read back as the stock ``invisible-watermark`` does.

Sources: Stability AI's generative-models, as in diffusers' ``StableDiffusionXLWatermarker``, for the bits;
``imwatermark.maxDct``, method ``dwtDct``, for the method. Colours and wavelets are left to the stock code's own
libraries, OpenCV and PyWavelets, which the extra ``worker`` brings. Its Python loop over the 16,384 blocks of a 1024²
picture would keep the GIL from the device thread; here it is array operations on the same float64 numbers in the same
order, and no bit differs.
"""

from functools import lru_cache
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
import pywt
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Coefficients = NDArray[np.float64]

WATERMARK_BITS: Final = tuple(int(bit) for bit in f"{0b101100111110110010010000011110111011000110011110:048b}")
_SMALLEST_AREA: Final = 256 * 256  # the stock encoder refuses less
_WAVELET: Final = "haar"
_SCALE: Final = 36
_BLOCK: Final = 4  # the side of a block, in coefficients: 8 pixels


class _Strongest(NamedTuple):
    """Of each block, in reading order, the coefficient that carries its bit: the largest but for the block's first."""

    values: Coefficients
    #: their places in the flattened approximation
    places: NDArray[np.intp]


def has_room(pixels: Pixels) -> bool:
    """Whether the picture is large enough to carry the mark."""
    return bool(pixels.shape[0] * pixels.shape[1] >= _SMALLEST_AREA)


def put_watermark(pixels: Pixels) -> Pixels:
    """The marked picture. uint8 RGB of shape (height, width, 3), as is what it returns."""
    yuv = _converted(pixels, cv2.COLOR_RGB2YUV)
    plane = _u_plane(yuv)
    low, high = _along_columns(plane)
    approximation, vertical = pywt.dwt(low, _WAVELET)
    horizontal, diagonal = pywt.dwt(high, _WAVELET)
    values, places = _strongest(approximation)
    magnitudes = (np.abs(values) // _SCALE + 0.25 + 0.5 * _bits_of(len(values))) * _SCALE
    np.put(approximation, places, np.where(values >= 0, magnitudes, -magnitudes))
    # The two are in each other's place: so the stock encoder has it, and its decoder has never known it otherwise.
    low = pywt.idwt(approximation, horizontal, _WAVELET)
    high = pywt.idwt(vertical, diagonal, _WAVELET)
    plane.T[...] = pywt.idwt(_transposed(low), _transposed(high), _WAVELET)
    return _converted(yuv, cv2.COLOR_YUV2RGB)


def num_bits_read(pixels: Pixels) -> int:
    """How many of the 48 bits the stock decoder reads back from uint8 RGB pixels."""
    plane = _u_plane(_converted(pixels, cv2.COLOR_RGB2YUV))
    approximation, _ = pywt.dwt(_along_columns(plane)[0], _WAVELET)
    values = np.abs(_strongest(approximation).values)
    bit_of_block = np.arange(len(values)) % len(WATERMARK_BITS)
    votes = np.bincount(bit_of_block, weights=values % _SCALE > 0.5 * _SCALE)
    read = votes / np.bincount(bit_of_block) * 255 > 127
    return int(np.count_nonzero(read == np.array(WATERMARK_BITS)))


def _converted(pixels: Pixels, colours: int) -> Pixels:
    return np.asarray(cv2.cvtColor(pixels, colours), dtype=np.uint8)


def _u_plane(yuv: Pixels) -> Pixels:
    """A view of the channel that carries the mark, cut to sides that are divisible by 4."""
    height, width, _ = yuv.shape
    return yuv[: height // 4 * 4, : width // 4 * 4, 1]


def _along_columns(plane: Pixels) -> tuple[Coefficients, Coefficients]:
    """The first half of ``pywt.dwt2``: low and high of each column. PyWavelets itself would go down the columns as they
    lie, past the cache, which takes five times as long."""
    low, high = pywt.dwt(_transposed(plane), _WAVELET)
    return _transposed(low), _transposed(high)


def _transposed(matrix: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(matrix.T)


def _strongest(approximation: Coefficients) -> _Strongest:
    """Where two are equally large, the first counts."""
    num_rows, num_columns = (side // _BLOCK for side in approximation.shape)
    blocks = approximation[: num_rows * _BLOCK, : num_columns * _BLOCK].reshape(num_rows, _BLOCK, num_columns, _BLOCK)
    cells = np.abs(blocks).transpose(1, 3, 0, 2).reshape(_BLOCK**2, -1)
    largest, cell = cells[1].copy(), np.ones(cells.shape[1], dtype=np.intp)
    for number in range(2, _BLOCK**2):
        np.copyto(cell, number, where=cells[number] > largest)
        np.maximum(largest, cells[number], out=largest)
    places = _first_places(approximation.shape[1], num_rows, num_columns) + _offset(cell, approximation.shape[1])
    return _Strongest(np.take(approximation, places), places)


def _offset(cell: NDArray[np.intp], row_length: int) -> NDArray[np.intp]:
    return cell // _BLOCK * row_length + cell % _BLOCK


@lru_cache(maxsize=32)
def _first_places(row_length: int, num_rows: int, num_columns: int) -> NDArray[np.intp]:
    """The place of each block's first coefficient."""
    rows, columns = np.arange(num_rows) * _BLOCK * row_length, np.arange(num_columns) * _BLOCK
    return (rows[:, None] + columns[None, :]).reshape(-1)


def _bits_of(num_blocks: int) -> NDArray[np.intp]:
    """The bit that each block carries."""
    return np.resize(np.array(WATERMARK_BITS), num_blocks)
