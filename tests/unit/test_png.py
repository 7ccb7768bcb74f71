"""The encoder of PNGs, held against what Pillow and OpenCV read, and against the size of Pillow's own files."""

import io
import struct
import zlib
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from PIL import Image

from farm.watermark import Pixels, put_watermark
from schemas.output import Output
from worker.image_files.encoding import encoded
from worker.image_files.png import png

Picture = Callable[[int, int], Pixels]


def by_pillow(content: bytes) -> Pixels:
    with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
        assert image.mode == "RGB"
        return np.asarray(image)


def by_opencv(content: bytes) -> Pixels:
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)[:, :, ::-1]


def rows_of(content: bytes) -> bytes:
    """What its one IDAT holds, the stream's own checksum looked at, which Pillow does not."""
    start = content.index(b"IDAT")
    (num_bytes,) = struct.unpack(">I", content[start - 4 : start])
    return zlib.decompress(content[start + 4 : start + 4 + num_bytes])


def grained(height: int, width: int) -> Pixels:
    """Soft shapes with grain, as most pictures are."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [128 + 60 * np.sin(x / (50 + 9 * n)) * np.cos(y / (65 - 5 * n)) for n in range(3)]
    return (np.stack(waves, axis=-1) + np.random.default_rng(1).normal(0, 4, (height, width, 3))).astype(np.uint8)


def soft(height: int, width: int) -> Pixels:
    y, x = np.mgrid[0:height, 0:width]
    waves = [128 + 100 * np.sin(x / (150 + 9 * n) + n) * np.cos(y / (165 - 5 * n)) for n in range(3)]
    return np.stack(waves, axis=-1).astype(np.uint8)


def drawn(height: int, width: int) -> Pixels:
    """Even areas with soft edges."""
    picture, random = np.full((height, width, 3), 200, np.uint8), np.random.default_rng(5)
    for _ in range(30):
        colour, centre = random.integers(0, 256, 3).tolist(), random.integers(0, width, 2).tolist()
        cv2.circle(picture, centre, int(random.integers(2, 3 + width // 7)), colour, -1, cv2.LINE_AA)
    return picture


def written(height: int, width: int) -> Pixels:
    """Small text on white."""
    picture = np.full((height, width, 3), 250, np.uint8)
    for bottom in range(16, height, 16):
        line = "the quick brown fox jumps over a lazy dog while seven wizards boil vinegar "[bottom % 31 :]
        cv2.putText(picture, line, (8, bottom), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (20, 20, 20), 1, cv2.LINE_AA)
    return picture


def noisy(height: int, width: int) -> Pixels:
    return np.random.default_rng(2).integers(0, 256, (height, width, 3)).astype(np.uint8)


def white(height: int, width: int) -> Pixels:
    return np.full((height, width, 3), 255, np.uint8)


KINDS = (grained, soft, drawn, written, noisy, white)
#: none divides the stripes that rows are filtered in
SIDES = (1, 2, 7, 31, 33, 64, 97)


@pytest.mark.parametrize("kind", KINDS)
def test_pillow_and_opencv_read_back_the_pixels_of_any_size(kind: Picture) -> None:
    for height in SIDES:
        for width in SIDES[2:]:
            pixels = kind(height, width)
            content = png(pixels)
            assert np.array_equal(by_pillow(content), pixels)
            assert np.array_equal(by_opencv(content), pixels)
            assert len(rows_of(content)) == height * (1 + 3 * width)


@pytest.mark.parametrize("kind", [grained, soft, drawn, written, noisy])
def test_a_file_is_hardly_larger_than_that_of_zlibs_usual_level(kind: Picture) -> None:
    pixels = put_watermark(kind(384, 384))
    assert len(encoded(pixels, Output(), 1)) < 1.08 * len(encoded(pixels, Output(), 6))


def test_each_filter_is_used_where_it_is_best() -> None:
    """One picture of four parts: noise, stripes across, stripes down, and a slope."""
    slope = np.add.outer(np.arange(64), np.arange(64))[:, :, None].repeat(3, axis=2)
    stripes = np.random.default_rng(3).integers(0, 256, (64, 1, 3)).repeat(64, axis=1)
    parts = [noisy(64, 64), stripes, stripes.transpose(1, 0, 2), slope * 2 % 256]
    filters = [set(rows_of(png(part.astype(np.uint8)))[:: 1 + 3 * 64]) for part in parts]
    assert filters[1] <= {0, 1}
    assert filters[2] >= {2}
    assert set.union(*filters) == {0, 1, 2, 3}


@pytest.mark.parametrize("level", [0, 2, 6, 9])
def test_the_other_levels_are_zlibs_and_give_the_same_pixels(level: int) -> None:
    pixels = grained(96, 80)
    content = encoded(pixels, Output(), level)
    assert np.array_equal(by_pillow(content), pixels)
    assert content != encoded(pixels, Output(), 1)
