"""Defaults: the values of ``--set``, and where a row's own choices leave them nothing to say.

A default fills what a row leaves open. Beside a mode, a start, a size or a format that the row itself gives, some
fields say nothing, and would be refused; there the default gives way. Between two defaults, and between two values of
the row, nothing gives way: they contradict each other.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from producer.manifests.rows import shown_value
from schemas.buckets import ASPECT_RATIO, SIDES
from schemas.combinations import OF_THE_BASE
from schemas.printable import printable
from schemas.refiner import FOREIGN, STARTS

MODE: Final = "refiner.mode"
#: of which a row needs one
START_FIELDS: Final = frozenset(f"refiner.{name}" for name in STARTS)
#: mode → the refiner's fields that say nothing in it
FOREIGN_FIELDS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {mode: frozenset(f"refiner.{name}" for name in names) for mode, names in FOREIGN.items()}
)
_FORMAT, _QUALITY, _INIT_IMAGE, _STRENGTH = "output.format", "output.quality", "init_image", "strength"
#: every field that gives way to some other: most defaults are none of them, and cost a row nothing
_GIVES_WAY: Final = frozenset().union(
    (ASPECT_RATIO, *SIDES, _QUALITY), START_FIELDS, OF_THE_BASE, *FOREIGN_FIELDS.values()
)


def with_defaults(own: Mapping[str, object], defaults: Mapping[str, object]) -> dict[str, object]:
    """The row's own values, and the defaults that they leave room for. A default strength needs an init image too."""
    values = overlaid(own, defaults)
    if _STRENGTH in defaults and _STRENGTH not in own and _INIT_IMAGE not in values:
        values.pop(_STRENGTH, None)
    return values


def overlaid(own: Mapping[str, object], others: Mapping[str, object]) -> dict[str, object]:
    """``own``, and of the others what says something beside it.

    One side of its own does not drop another's ratio: it is half a size, contradicts the ratio, and is refused.
    """
    if _GIVES_WAY.isdisjoint(others):
        return {**others, **own}
    silent = set(_silent_beside(own))
    return {**{field: value for field, value in others.items() if field not in silent}, **own}


def _silent_beside(own: Mapping[str, object]) -> Iterator[str]:
    if ASPECT_RATIO in own:
        yield from SIDES
    elif all(side in own for side in SIDES):
        yield ASPECT_RATIO
    if not START_FIELDS.isdisjoint(own):
        yield from START_FIELDS
    if MODE in own:
        yield from FOREIGN_FIELDS.get(str(own[MODE]), ())
        yield from OF_THE_BASE if own[MODE] == "only" else ()
    if own.get(_FORMAT) == "png":
        yield _QUALITY


def set_option(field: str, value: object) -> str:
    """``--set refiner.start=0.9``, printable and of bounded length: how people gave it."""
    return f"--set {printable(field)}={shown_value(value)}"
