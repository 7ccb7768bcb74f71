"""The watermark, held against the stock encoder and decoder: not a bit may differ, whatever the picture."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from imwatermark import WatermarkDecoder, WatermarkEncoder
from imwatermark.maxDct import EmbedMaxDct

from farm.watermark import WATERMARK_BITS, Pixels, num_bits_read, put_watermark

Picture = Callable[[np.random.Generator, int, int], np.ndarray]


def noise(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    return random.integers(0, 256, (height, width, 3))


def natural(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Soft shapes with some grain."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / random.uniform(3, 80) + n) * np.cos(y / random.uniform(3, 80)) for n in range(3)]
    grain = random.normal(0, random.uniform(0, 8), (height, width, 3))
    return random.uniform(30, 220) + random.uniform(5, 120) * np.stack(waves, axis=-1) + grain


def black_or_white(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), random.choice([0, 1, 254, 255]))


def one_colour(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    return np.broadcast_to(random.integers(0, 256, 3), (height, width, 3))


def nearly_white(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    return 255 - random.integers(0, 4, (height, width, 3))


def checks(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Squares of the strongest colours there are: coefficients of equal size, and values beyond 0 and 255."""
    squares = random.integers(0, 2, (height // 8 + 1, width // 8 + 1, 3)) * 255
    return squares.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]


def dots(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    return random.integers(0, 2, (height, width, 3)) * 255


PICTURES = (noise, natural, black_or_white, one_colour, nearly_white, checks, dots)


def drawn(picture: Picture, random: np.random.Generator, height: int, width: int) -> Pixels:
    return picture(random, height, width).clip(0, 255).astype(np.uint8)


def bgr(pixels: Pixels) -> Pixels:
    return np.ascontiguousarray(pixels[:, :, ::-1])


def correct_bits(read: Any) -> int:
    return sum(int(bit) == wanted for bit, wanted in zip(read, WATERMARK_BITS, strict=True))


@pytest.mark.parametrize("picture", PICTURES)
def test_140_small_pictures_of_any_size_are_as_the_stock_code_has_them(picture: Picture) -> None:
    random = np.random.default_rng(1)
    stock = EmbedMaxDct(list(WATERMARK_BITS), wmLen=48)  # without the stock wrapper, which refuses small pictures
    for _ in range(140):
        pixels = drawn(picture, random, *random.integers(64, 110, 2))
        marked = put_watermark(pixels)
        assert np.array_equal(bgr(marked), stock.encode(bgr(pixels)))
        assert num_bits_read(marked) == correct_bits(stock.decode(bgr(marked)))
        assert num_bits_read(pixels) == correct_bits(stock.decode(bgr(pixels)))


@pytest.mark.parametrize("size", [(256, 256), (255, 258), (64, 1027), (1031, 65), (301, 219), (512, 300)])
@pytest.mark.parametrize("picture", PICTURES)
def test_larger_pictures_are_as_the_stock_encoder_and_decoder_have_them(
    picture: Picture, size: tuple[int, int]
) -> None:
    pixels = drawn(picture, np.random.default_rng(2), *size)
    stock = WatermarkEncoder()
    stock.set_watermark("bits", list(WATERMARK_BITS))
    marked = put_watermark(pixels)
    assert np.array_equal(bgr(marked), stock.encode(bgr(pixels), "dwtDct"))
    assert num_bits_read(marked) == correct_bits(WatermarkDecoder("bits", 48).decode(bgr(marked), "dwtDct"))


def test_a_white_picture_does_not_give_back_every_bit() -> None:
    assert num_bits_read(put_watermark(np.full((256, 256, 3), 255, dtype=np.uint8))) < 48


def test_the_given_picture_stays_as_it_is() -> None:
    pixels = drawn(noise, np.random.default_rng(4), 256, 256)
    before = pixels.copy()
    put_watermark(pixels)
    assert np.array_equal(pixels, before)


def test_the_bits_are_those_of_diffusers() -> None:
    from diffusers.pipelines.stable_diffusion_xl.watermark import WATERMARK_BITS as THEIRS

    assert list(WATERMARK_BITS) == THEIRS


def test_a_worker_finishes_images_without_the_stock_package() -> None:
    code = "import sys, worker.image_files.finishing; sys.exit('imwatermark' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
