"""Pixels to the bytes of a PNG, in a tenth of the time that zlib's usual level takes, and hardly larger.

Filters are array operations, ISA-L deflates; each step lets go of the GIL. In the rows of a rendered picture, once they
are filtered, there is little that repeats: what pays is coding frequent bytes shortly. So ISA-L looks back 4 bytes at
the most, which makes it faster and the file smaller. A drawing with large even areas is full of repetition, and small
whatever one does; zlib-ng, which looks for it, has the time there.

Sources: the PNG specification, section 9 for the filters and 12.7 for the choice among them; RFC 1950 for the frame
around what ISA-L deflated.
"""

import struct
from typing import Final

import cv2
import numpy as np
from isal import igzip_lib, isal_zlib
from numpy.typing import NDArray
from zlib_ng import zlib_ng

from farm.watermark import Pixels

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_RGB_OF_8_BITS: Final = (8, 2, 0, 0, 0)
_PIXEL_BYTES: Final = 3
#: of None, Sub, Up and Average. Paeth takes as long as these together, and saves 0 to 5 %.
_NUM_FILTERS: Final = 4
#: rows at once: what is made of them stays in the processor's cache
_STRIPE_ROWS: Final = 32
#: as a power of two, in bytes
_WINDOW_BITS: Final = 2
#: A picture that comes down to less than this share of its bytes repeats itself.
_EVEN_SHARE: Final = 0.2
_EVEN_LEVEL: Final = 5
#: Where that finds so much that less than half is left, looking longer is quick, and finds a fifth more.
_REPEATED_SHARE: Final = 0.5
_REPEATED_LEVEL: Final = 6
#: A picture of which so much does not change from pixel to pixel may be a page of text: even, and not small by that.
_UNCHANGED_SHARE: Final = 0.5
#: of such a picture one stripe in so many is tried out
_TRIED_STRIPES: Final = 8
#: and if what repeats in it makes it as much smaller, it is looked for in all of it.
_TRIED_SHARE: Final = 0.6
_ZLIB_HEADER: Final = b"\x78\x01"


def png(pixels: Pixels) -> bytes:
    """The file, without metadata. ``pixels``: uint8 RGB of shape (height, width, 3)."""
    height, width, _ = pixels.shape
    chunks = {
        b"IHDR": struct.pack(">II5B", width, height, *_RGB_OF_8_BITS),
        b"IDAT": _deflated(_filtered(pixels)),
        b"IEND": b"",
    }
    return b"".join([_SIGNATURE, *(part for kind, data in chunks.items() for part in _chunk(kind, data))])


def _chunk(kind: bytes, data: bytes) -> tuple[bytes, ...]:
    return struct.pack(">I", len(data)), kind, data, struct.pack(">I", isal_zlib.crc32(data, isal_zlib.crc32(kind)))


def _filtered(pixels: Pixels) -> NDArray[np.uint8]:
    """(height, 1 + 3 x width): each row filtered, after the number of its filter."""
    height, width, _ = pixels.shape
    padded = np.zeros((height + 1, (width + 1) * _PIXEL_BYTES), np.uint8)  # what lies outside counts as black
    padded[1:, _PIXEL_BYTES:] = pixels.reshape(height, -1)
    rows = np.empty((height, 1 + width * _PIXEL_BYTES), np.uint8)
    for top in range(0, height, _STRIPE_ROWS):
        end = min(top + _STRIPE_ROWS, height)
        _filter(padded[top : end + 1], rows[top:end])
    return rows


def _filter(padded: NDArray[np.uint8], rows: NDArray[np.uint8]) -> None:
    """Fills ``rows``. ``padded``: theirs, and the one above them, each after a pixel of black.

    Each row gets the filter whose bytes, as signed numbers, have the smallest sum of magnitudes.
    """
    here, left, above = padded[1:, _PIXEL_BYTES:], padded[1:, :-_PIXEL_BYTES], padded[:-1, _PIXEL_BYTES:]
    filtered = np.empty((_NUM_FILTERS, *here.shape), np.uint8)
    filtered[0] = here
    np.subtract(here, left, out=filtered[1])
    np.subtract(here, above, out=filtered[2])
    np.subtract(here, (left & above) + ((left ^ above) >> 1), out=filtered[3])  # their mean, in 8 bits
    magnitudes = np.abs(filtered.view(np.int8)).view(np.uint8).reshape(-1, here.shape[1])
    sums = cv2.reduce(magnitudes, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S).reshape(_NUM_FILTERS, -1)
    rows[:, 0] = sums.argmin(axis=0)
    rows[:, 1:] = filtered[rows[:, 0], np.arange(len(rows))]


def _deflated(rows: NDArray[np.uint8]) -> bytes:
    """A zlib stream."""
    quick = _quick(rows)
    if len(quick) < rows.size * _EVEN_SHARE:
        even = zlib_ng.compress(rows, _EVEN_LEVEL)
        is_repeated = len(even) < len(quick) * _REPEATED_SHARE
        return zlib_ng.compress(rows, _REPEATED_LEVEL) if is_repeated else even
    if _is_like_text(rows):
        return zlib_ng.compress(rows, _REPEATED_LEVEL)
    return b"".join([_ZLIB_HEADER, quick, struct.pack(">I", isal_zlib.adler32(rows))])


def _quick(rows: NDArray[np.uint8]) -> bytes:
    """Without the frame that makes it a zlib stream."""
    return igzip_lib.compress(rows, 1, igzip_lib.COMP_DEFLATE, hist_bits=_WINDOW_BITS)


def _is_like_text(rows: NDArray[np.uint8]) -> bool:
    """Letters repeat, and have edges: their bytes are many, and nothing but looking for them elsewhere helps."""
    if np.count_nonzero(rows) > rows.size * (1 - _UNCHANGED_SHARE):
        return False
    tops = range(0, len(rows), _STRIPE_ROWS * _TRIED_STRIPES)
    tried = np.concatenate([rows[top : top + _STRIPE_ROWS] for top in tops])
    return len(zlib_ng.compress(tried, _EVEN_LEVEL)) < len(_quick(tried)) * _TRIED_SHARE
