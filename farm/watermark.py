"""The invisible watermark of SDXL: diffusers' 48 bits, put in and read back as the stock ``invisible-watermark`` does.

Sources: Stability AI's generative-models, as in diffusers' ``StableDiffusionXLWatermarker``, for the bits;
``imwatermark.maxDct``, method ``dwtDct``, for the method. Colours are left to the stock code's own library, OpenCV. Its
Python loop over the 16,384 blocks of a 1024² picture would keep the GIL from the device thread; here it is array
operations on the same float64 numbers in the same order, and no bit differs. So is the wavelet, Haar's, which takes a
square of 2 x 2 pixels to four coefficients: PyWavelets, which can do any other, takes three times as long for it.
"""

from functools import lru_cache
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Coefficients = NDArray[np.float64]

WATERMARK_BITS: Final = tuple(int(bit) for bit in f"{0b101100111110110010010000011110111011000110011110:048b}")
_SMALLEST_AREA: Final = 256 * 256  # the stock encoder refuses less
#: Haar's filter, as the next float64. Twice it is not quite 1/2, and what is cut off in the end hangs on that.
_HALF_ROOT: Final = 0.5**0.5
_SCALE: Final = 36
_BLOCK: Final = 4  # the side of a block, in coefficients: 8 pixels


class _Strongest(NamedTuple):
    """Of each block, in reading order, the coefficient that carries its bit: the largest but for the block's first."""

    values: Coefficients
    #: their places in the flattened approximation
    places: NDArray[np.intp]


class _Haar(NamedTuple):
    """The coefficients of all squares of 2 x 2 pixels, each (height / 2, width / 2)."""

    approximation: Coefficients
    horizontal: Coefficients
    vertical: Coefficients
    diagonal: Coefficients


def has_room(pixels: Pixels) -> bool:
    """Whether the picture is large enough to carry the mark."""
    return bool(pixels.shape[0] * pixels.shape[1] >= _SMALLEST_AREA)


def put_watermark(pixels: Pixels) -> Pixels:
    """The marked picture. uint8 RGB of shape (height, width, 3), as is what it returns."""
    yuv = _converted(pixels, cv2.COLOR_RGB2YUV)
    plane = _u_plane(yuv)
    coefficients = _transformed(plane)
    values, places = _strongest(coefficients.approximation)
    magnitudes = (np.abs(values) // _SCALE + 0.25 + 0.5 * _bits_of(len(values))) * _SCALE
    np.put(coefficients.approximation, places, np.where(values >= 0, magnitudes, -magnitudes))
    _write_back(coefficients, plane)
    return _converted(yuv, cv2.COLOR_YUV2RGB)


def num_bits_read(pixels: Pixels) -> int:
    """How many of the 48 bits the stock decoder reads back from uint8 RGB pixels."""
    plane = _u_plane(_converted(pixels, cv2.COLOR_RGB2YUV))
    values = np.abs(_strongest(_approximation(plane)).values)
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


def _squares(plane: Pixels) -> list[Coefficients]:
    """The upper left, upper right, lower left and lower right pixels of all squares, each times the filter."""
    pairs = np.ascontiguousarray(plane).reshape(len(plane), -1, 2)
    columns = cv2.split(pairs)  # which numpy's own steps of 2 would take three times as long for
    return [np.multiply(column[row::2], _HALF_ROOT, dtype=np.float64) for row in (0, 1) for column in columns]


def _approximation(plane: Pixels) -> Coefficients:
    upper_left, upper_right, lower_left, lower_right = _squares(plane)
    return (upper_left + lower_left) * _HALF_ROOT + (upper_right + lower_right) * _HALF_ROOT


def _transformed(plane: Pixels) -> _Haar:
    """Along the columns first, then along the rows, as ``pywt.dwt2`` goes."""
    upper_left, upper_right, lower_left, lower_right = _squares(plane)
    low = [(upper + lower) * _HALF_ROOT for upper, lower in ((upper_left, lower_left), (upper_right, lower_right))]
    high = [(upper - lower) * _HALF_ROOT for upper, lower in ((upper_left, lower_left), (upper_right, lower_right))]
    return _Haar(low[0] + low[1], high[0] + high[1], low[0] - low[1], high[0] - high[1])


def _write_back(coefficients: _Haar, plane: Pixels) -> None:
    """Into ``plane``, the digits after the point cut off; along the rows first, as ``pywt.idwt2`` goes.

    Horizontal and vertical are in each other's place: so the stock encoder has it, and its decoder has never known it
    otherwise.
    """
    approximation, vertical, horizontal, diagonal = (part * _HALF_ROOT for part in coefficients)
    low = [(approximation + vertical) * _HALF_ROOT, (approximation - vertical) * _HALF_ROOT]
    high = [(horizontal + diagonal) * _HALF_ROOT, (horizontal - diagonal) * _HALF_ROOT]
    for row, columns in enumerate(((low[0] + high[0], low[1] + high[1]), (low[0] - high[0], low[1] - high[1]))):
        pairs = cv2.merge([column.astype(np.int32).astype(np.uint8) for column in columns])  # around, not up to the end
        plane[row::2] = pairs.reshape(len(pairs), -1)


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
