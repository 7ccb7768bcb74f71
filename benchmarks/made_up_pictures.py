"""Pictures to encode, as different as pictures are: photographs by their spectrum, soft shapes, drawings, noise."""

from collections.abc import Callable
from typing import Final

import cv2
import numpy as np

from farm.watermark import Pixels


def _uint8(values: np.ndarray) -> Pixels:
    return values.clip(0, 255).astype(np.uint8)


def grained(side: int) -> Pixels:
    """Soft shapes with grain."""
    y, x = np.mgrid[0:side, 0:side]
    waves = [128 + 60 * np.sin(x / (50 + 9 * n)) * np.cos(y / (65 - 5 * n)) for n in range(3)]
    return _uint8(np.stack(waves, axis=-1) + np.random.default_rng(1).normal(0, 4, (side, side, 3)))


def soft(side: int) -> Pixels:
    """The same shapes, larger and without grain."""
    y, x = np.mgrid[0:side, 0:side]
    waves = [128 + 100 * np.sin(x / (150 + 9 * n) + n) * np.cos(y / (165 - 5 * n)) for n in range(3)]
    return _uint8(np.stack(waves, axis=-1))


def photograph(side: int, exponent: float = 1.6, grain: float = 2.0) -> Pixels:
    """Amplitudes fall with the frequency as in photographs: by f^-1.2 in busy ones, by f^-2 in blurred ones. Colours
    vary less than brightness does."""
    random = np.random.default_rng(3)
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None])
    frequency[0, 0] = np.inf

    def plane() -> np.ndarray:
        waves = np.fft.ifft2(np.fft.fft2(random.normal(size=(side, side))) / frequency**exponent).real
        return waves / waves.std()

    brightness, red, blue = plane(), plane(), plane()
    colours = np.stack([brightness + 0.35 * red, brightness - 0.15 * (red + blue), brightness + 0.35 * blue], axis=-1)
    return _uint8(118 + 50 * colours + random.normal(0, grain, colours.shape))


def decoded_softly(side: int) -> Pixels:
    """Sharp at twice the size of a pixel alone."""
    return np.asarray(
        cv2.resize(photograph(side // 2, 1.3, 3.0), (side, side), interpolation=cv2.INTER_CUBIC), np.uint8
    )


def recompressed(side: int) -> Pixels:
    """With the blocks of a JPEG."""
    content = cv2.imencode(".jpg", photograph(side), [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
    return np.asarray(cv2.imdecode(content, cv2.IMREAD_COLOR), np.uint8)


def drawing(side: int) -> Pixels:
    """Even areas with soft edges."""
    picture, random = np.full((side, side, 3), 200, np.uint8), np.random.default_rng(5)
    for _ in range(120):
        colour, centre = random.integers(0, 256, 3).tolist(), random.integers(0, side, 2).tolist()
        cv2.circle(picture, centre, int(random.integers(side // 100, side // 6)), colour, -1, cv2.LINE_AA)
    return picture


def page(side: int) -> Pixels:
    """Small text on white."""
    picture, random = np.full((side, side, 3), 250, np.uint8), np.random.default_rng(4)
    words = "the quick brown fox jumps over a lazy dog while seven wizards boil vinegar and zest " * (side // 300 + 2)
    for bottom in range(16, side, 16):
        line = words[random.integers(90) :]
        cv2.putText(picture, line, (8, bottom), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (20, 20, 20), 1, cv2.LINE_AA)
    return picture


def on_white(side: int) -> Pixels:
    """An object before an even ground."""
    mask = cv2.circle(np.zeros((side, side), np.uint8), (side // 2, side // 2), side * 3 // 10, 1, -1)[:, :, None]
    return photograph(side) * mask + 255 * (1 - mask)


def dark(side: int) -> Pixels:
    return photograph(side, 2.0, 0.0) // np.uint8(12)


def slope(side: int) -> Pixels:
    y, x = np.mgrid[0:side, 0:side] * 256 // side
    return _uint8(np.stack([x, y, (x + y) // 2], axis=-1))


def noise(side: int) -> Pixels:
    return np.random.default_rng(2).integers(0, 256, (side, side, 3)).astype(np.uint8)


PICTURES: Final[dict[str, Callable[[int], Pixels]]] = {
    "soft shapes with grain": grained,
    "soft shapes": soft,
    "photograph": photograph,
    "busy photograph": lambda side: photograph(side, 1.2, 0.0),
    "blurred photograph": lambda side: photograph(side, 2.0, 0.0),
    "photograph, soft in its pixels": decoded_softly,
    "photograph with a JPEG's blocks": recompressed,
    "object on white": on_white,
    "dark photograph": dark,
    "drawing": drawing,
    "page of small text": page,
    "slope": slope,
    "noise": noise,
}
