"""What finishing takes from OpenCV, in NumPy, for a machine whose Python has none. Bit by bit the same, and slower.

Colours as in OpenCV's ``color_yuv``: fixed point with 14 bits behind the point, rounded half up.
"""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

COLOR_RGB2YUV: Final = 83
COLOR_YUV2RGB: Final = 85
REDUCE_SUM: Final = 0
CV_32S: Final = 4
_BITS: Final = 14
_HALF: Final = 1 << (_BITS - 1)


def stand_in() -> None:
    """Takes OpenCV's place, whether there is one or not: what is there may not load."""
    module = ModuleType("cv2")
    module.__spec__ = ModuleSpec("cv2", None)  # transformers asks Python whether there is an OpenCV, and fails without
    vars(module).update({name: value for name, value in globals().items() if not name.startswith("_")})
    sys.modules["cv2"] = module


def cvtColor(pixels: NDArray[np.uint8], colours: int) -> NDArray[np.uint8]:  # noqa: N802 - OpenCV's name
    """uint8 of shape (height, width, 3)."""
    first, second, third = (pixels[:, :, channel].astype(np.int32) for channel in range(3))
    if colours == COLOR_RGB2YUV:
        luma = _shifted(4899 * first + 9617 * second + 1868 * third)
        offset = 128 << _BITS
        channels = luma, _shifted(8061 * (third - luma) + offset), _shifted(14369 * (first - luma) + offset)
    else:
        blue, red = second - 128, third - 128
        channels = (
            first + _shifted(18678 * red),
            first + _shifted(-6472 * blue - 9519 * red),
            first + _shifted(33292 * blue),
        )
    return np.stack([channel.clip(0, 255) for channel in channels], axis=2).astype(np.uint8)


def split(pixels: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    return tuple(np.ascontiguousarray(pixels[:, :, channel]) for channel in range(pixels.shape[2]))


def merge(channels: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.stack(channels, axis=2)


def reduce(matrix: NDArray[Any], dim: int, rtype: int, dtype: int) -> NDArray[np.int32]:
    """Sums of rows (``dim`` 1) or columns."""
    if (rtype, dtype) != (REDUCE_SUM, CV_32S):
        raise ValueError("only sums as 32-bit integers")
    return matrix.sum(axis=dim, dtype=np.int32, keepdims=True)


def _shifted(values: NDArray[np.int32]) -> NDArray[np.int32]:
    return (values + _HALF) >> _BITS
