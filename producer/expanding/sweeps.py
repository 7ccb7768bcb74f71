"""Sweeps: every row rendered with the values of one or several fields, in all combinations or side by side."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from math import prod
from typing import Final

from producer.expanding.axes import Axis, AxisValue, check_both, parsed_axis
from schemas.errors import InputError

MAX_VALUES: Final = 10_000
_OPTION: Final = "--sweep"


@dataclass(frozen=True)
class Sweep:
    """What fields take which values. ``zipped``: the first value of each, then the second of each, ..."""

    each: tuple[Axis, ...]
    zipped: bool = False

    @property
    def fields(self) -> frozenset[str]:
        return frozenset(axis.field for axis in self.each)

    @property
    def num_cells(self) -> int:
        return len(self.each[0].values) if self.zipped else prod(len(axis.values) for axis in self.each)

    @property
    def cells(self) -> Iterator[tuple[AxisValue, ...]]:
        """The values of each image, in the order of the fields; the last field changes first."""
        values = [axis.values for axis in self.each]
        return zip(*values, strict=True) if self.zipped else product(*values)


def parsed_sweep(given: Sequence[str], *, zipped: bool) -> Sweep | None:
    """``--sweep``, as often as it was given, and ``--zip``.

    Raises:
        InputError: one of them is malformed, two say the same thing, or those to be zipped are not of one length.
    """
    if zipped and len(given) < 2:
        raise InputError("--zip walks several --sweep together; give two of them at the least")
    axes = tuple(parsed_axis(_OPTION, text, MAX_VALUES, "sweep") for text in given)
    for first, second in combinations(axes, 2):
        check_both((_OPTION, first), (_OPTION, second))
    if zipped and len({len(axis.values) for axis in axes}) > 1:
        lengths = ", ".join(f"{axis.field} has {len(axis.values):,}" for axis in axes)
        raise InputError(f"--zip walks through equally many values of each --sweep: {lengths}")
    return Sweep(axes, zipped) if axes else None
