"""What an export holds, counted while it is chosen: for its columns, its card, and whether it was made alike."""

import math
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import cached_property
from operator import itemgetter
from typing import Final, NamedTuple, TypeVar

from producer.exports.done_jobs import DoneJob
from producer.exports.exported_fields import KINDS, META, Kind, Value, kind_of

T = TypeVar("T", bound=Hashable)

#: different ones of a number, each of which is counted
MOST_VALUES: Final = 1_000
#: by its name in the card; what may be another one in each row is counted by itself, or there would be as many kinds
_GUIDANCE: Final = "guidance_scale"
_COUNTED: Final = ("pair", "scheduler", "num_inference_steps", "refiner.mode", "output.format", "prompt_syntax")
_counted: Final = itemgetter(*_COUNTED)


class Column(NamedTuple):
    """``is_full``: every row has a value."""

    name: str
    kind: Kind
    is_full: bool


class _Kind(NamedTuple):
    """``made_by``: environment, images in the forward pass, how it was compiled. ``values``: of ``_COUNTED``."""

    split: str
    size: tuple[int, int]
    made_by: tuple[str, int, str]
    values: tuple[Value, ...]


@dataclass
class Spread:
    """How often each value came of a number that may be another one in each row. Of more than ``MOST_VALUES`` only the
    least and the greatest are kept."""

    least: float = math.inf
    greatest: float = -math.inf
    _counted: Counter[float] = field(default_factory=Counter)

    def add(self, value: float) -> None:
        self.least, self.greatest = min(self.least, value), max(self.greatest, value)
        if len(self._counted) <= MOST_VALUES:
            self._counted[value] += 1

    def counted(self, num_images: int) -> Counter[str]:
        """As the card says it."""
        if len(self._counted) > MOST_VALUES:
            return Counter({f"{self.least} to {self.greatest}, more than {MOST_VALUES:,} values": num_images})
        return Counter({str(value): num for value, num in self._counted.items()})


@dataclass
class Tally:
    """Of the chosen jobs; ``num_left_out`` of the others, by reason. Images of one kind are counted together, which is
    quicker than to count each thing about them."""

    num_images: int = 0
    num_bytes: int = 0
    num_left_out: Counter[str] = field(default_factory=Counter)
    _kinds: Counter[_Kind] = field(default_factory=Counter)
    _guidance: Spread = field(default_factory=Spread)
    #: columns that have a value, and names of meta
    _filled: Counter[tuple[tuple[str, ...], tuple[str, ...]]] = field(default_factory=Counter)

    def add(self, job: DoneJob, split: str) -> None:
        row, values, made = job.row, job.values, job.provenance
        guidance = values[_GUIDANCE]
        assert isinstance(guidance, float)
        made_by = row.environment_digest, made.get("forward_pass_size", 0), made.get("compile_mode", "off")
        self.num_images += 1
        self.num_bytes += row.size_bytes
        self._kinds[_Kind(split, (row.width, row.height), made_by, _counted(values))] += 1
        self._guidance.add(guidance)
        self._filled[tuple([name for name, value in values.items() if value is not None]), tuple(job.meta)] += 1

    @cached_property
    def of_split(self) -> Counter[str]:
        return self._counted_by(lambda kind: kind.split)

    @cached_property
    def sizes(self) -> Counter[tuple[int, int]]:
        return self._counted_by(lambda kind: kind.size)

    @cached_property
    def made_by(self) -> Counter[tuple[str, int, str]]:
        """By environment, images in the forward pass, how it was compiled."""
        return self._counted_by(lambda kind: kind.made_by)

    @cached_property
    def of_value(self) -> dict[str, Counter[str]]:
        """column → value → how many"""
        guidance = self._guidance.counted(self.num_images)
        return {_GUIDANCE: guidance, **{name: self._of_value(place) for place, name in enumerate(_COUNTED)}}

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """Those that any row has a value in, meta last."""
        filled: Counter[str] = Counter()
        for (own, meta), num in self._filled.items():
            filled.update(dict.fromkeys([*own, *(META + name for name in meta)], num))
        names = [*(name for name in KINDS if filled[name]), *sorted(name for name in filled if name.startswith(META))]
        return tuple(Column(name, kind_of(name), filled[name] == self.num_images) for name in names)

    def _of_value(self, place: int) -> Counter[str]:
        return self._counted_by(lambda kind: str(kind.values[place]))

    def _counted_by(self, of: Callable[[_Kind], T]) -> Counter[T]:
        counted: Counter[T] = Counter()
        for kind, num in self._kinds.items():
            counted[of(kind)] += num
        return counted
