"""The sizes that SDXL was trained at, and the one that an aspect ratio stands for.

The list is that of SDXL's report (https://arxiv.org/abs/2307.01952, multi-aspect training): about 1024² pixels each.
"""

import math
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any, Final, NamedTuple

from schemas.errors import FieldProblem, SpecError
from schemas.printable import shown

#: A field that no spec keeps: it stands for width and height.
ASPECT_RATIO: Final = "aspect_ratio"
SIDES: Final = ("width", "height")
#: What people ask for, from square to wide; each has its portrait.
USUAL_RATIOS: Final = (
    "1:1", "5:4", "4:3", "3:2", "16:10", "5:3", "16:9", "1.85:1", "2:1", "21:9", "2.39:1", "3:1", "32:9", "4:1",
)  # fmt: skip

_TRAINED_PIXELS: Final = 1024 * 1024
#: short side → long sides
_LONG_SIDES: Final = {
    512: (2048, 1984, 1920, 1856),
    576: (1792, 1728, 1664),
    640: (1600, 1536),
    704: (1472, 1408, 1344),
    768: (1344, 1280),
    832: (1216, 1152),
    896: (1152, 1088),
    960: (1088, 1024),
    1024: (1024,),
}
_RATIO: Final = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?) *: *([0-9]{1,6}(?:\.[0-9]{1,6})?)")


class Bucket(NamedTuple):
    """A size in pixels."""

    width: int
    height: int

    @property
    def portrait(self) -> "Bucket":
        """The same size, turned."""
        return Bucket(self.height, self.width)

    @property
    def ratio(self) -> float:
        """Width by height."""
        return self.width / self.height

    @property
    def megapixels(self) -> float:
        """Millions of pixels, not of 1024²."""
        return self.width * self.height / 1e6


#: from square to wide
LANDSCAPE_BUCKETS: Final = tuple(
    sorted((Bucket(long, short) for short, longs in _LONG_SIDES.items() for long in longs), key=lambda size: size.ratio)
)
#: from tall to wide
BUCKETS: Final = (*(size.portrait for size in LANDSCAPE_BUCKETS[:0:-1]), *LANDSCAPE_BUCKETS)
_WIDEST: Final = LANDSCAPE_BUCKETS[-1]
#: How far a bucket is at most from 1024² pixels, as a share of them: about a tenth.
_TOLERANCE: Final = max(abs(size.width * size.height / _TRAINED_PIXELS - 1) for size in BUCKETS)


def has_trained_pixel_count(width: int, height: int) -> bool:
    """Whether the size is no further from 1024² pixels than the buckets are."""
    return abs(width * height / _TRAINED_PIXELS - 1) <= _TOLERANCE


@lru_cache(maxsize=1024)
def nearest_bucket(width: float, height: float) -> Bucket:
    """The bucket whose ratio is nearest, as a factor. What is beyond 4:1 gets the widest (or tallest)."""
    wanted = abs(math.log(width / height))
    nearest = min(LANDSCAPE_BUCKETS, key=lambda size: abs(math.log(size.ratio) - wanted))
    return nearest if width >= height else nearest.portrait


def names_of(size: Bucket) -> tuple[str, ...]:
    """The usual ratios that stand for the bucket; where there is none, its own, in lowest terms."""
    turned = size.width < size.height
    found = [name for name in USUAL_RATIOS if bucket_of(name) == (size.portrait if turned else size)]
    own = Fraction(max(size), min(size))
    names = found or [f"{own.numerator}:{own.denominator}"]
    return tuple(":".join(reversed(name.split(":"))) if turned else name for name in names)


def bucket_of(aspect_ratio: object) -> Bucket:
    """The bucket nearest to an aspect ratio such as ``16:9`` or ``2.39:1``: width to height.

    Raises:
        SpecError: it is not of that form, or wider or taller than any bucket. Its one problem names the field.
    """
    found = _RATIO.fullmatch(aspect_ratio.strip()) if isinstance(aspect_ratio, str) else None
    width, height = map(Fraction, found.groups()) if found else (Fraction(0), Fraction(0))
    if not width or not height:
        raise _refusal(aspect_ratio, 'is not two positive numbers as in "16:9" or "2.39:1", width first')
    if max(width / height, height / width) > Fraction(*_WIDEST):
        raise _refusal(
            aspect_ratio, "is beyond 4:1, the widest that SDXL was trained at; give width and height instead"
        )
    return nearest_bucket(float(width), float(height))


def with_sides(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields of a spec with width and height in the place of ``aspect_ratio``.

    Raises:
        SpecError: see ``bucket_of``; or a side stands beside it.
    """
    if ASPECT_RATIO not in fields:
        return fields
    given, sides = fields[ASPECT_RATIO], [side for side in SIDES if side in fields]
    if sides:
        raise _refusal(given, f"stands beside {' and '.join(sides)}; give either the ratio, or width and height", sides)
    others = {name: value for name, value in fields.items() if name != ASPECT_RATIO}
    return others | bucket_of(given)._asdict()


def _refusal(value: object, reason: str, beside: Sequence[str] = ()) -> SpecError:
    problem = FieldProblem(ASPECT_RATIO, value, reason, tuple(beside))
    return SpecError(f"{ASPECT_RATIO}: {shown(value)}: {reason}", [problem])
