"""Axes of a grid or a sweep: which values a field takes, and what they replace in a row.

``4:8:1``, in a field that holds a number, is 4, 5, 6, 7, 8. An axis wins over the row and over ``--set``, and what says
nothing beside it is dropped, as a default gives way to a row. One that says where the refiner takes over, or
in which mode, decides the refiner's mode, and drops the refiner's fields of the other axis too: a comparison with and
without the refiner would otherwise be refused for what belongs to the other half of it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from producer.expanding.axis_fields import holds_number, may_be_absent
from producer.expanding.axis_ranges import range_values
from producer.manifests.columns import FIELDS, known_fields, normal_name
from producer.manifests.defaults import FOREIGN_FIELDS, MODE, START_FIELDS, overlaid, with_defaults
from producer.manifests.rows import shown_value
from schemas.errors import InputError
from schemas.printable import printable

MAX_VALUES: Final = 20

#: In double quotes, doubled inside, or up to the next comma; then that comma, or the end.
_VALUE: Final = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^",\s][^,]*|))\s*(,|$)')


@dataclass(frozen=True)
class AxisValue:
    """One value, as text. ``quoted``: it stands in quotes, and so ``off`` and ``none`` are text. ``word``: what begins
    sentences about it."""

    field: str
    text: str
    quoted: bool = False
    word: str = "axis"

    def __str__(self) -> str:
        """``refiner.start=0.8``, printable and of bounded length."""
        return f"{printable(self.field)}={self.label}"

    @property
    def named(self) -> str:
        """``axis refiner.start=0.8``"""
        return f"{self.word} {self}"

    @property
    def label(self) -> str:
        """The value for people: what would be misread without its quotes keeps them."""
        shown = shown_value(self.text)
        return f'"{shown}"' if self.quoted and self.text in ("", "off", "none") else shown

    @property
    def is_off(self) -> bool:
        """The base alone, in an axis that says where the refiner takes over."""
        return self.field in START_FIELDS and self._is_word("off")

    @property
    def is_none(self) -> bool:
        """The field is left out, as if neither the row nor ``--set`` gave it."""
        return self._is_word("none") and may_be_absent(self.field)

    def _is_word(self, word: str) -> bool:
        return self.text == word and not self.quoted

    @property
    def replaced(self) -> frozenset[str]:
        """The fields of a row that this value takes the place of."""
        return START_FIELDS | {MODE} if self.field in START_FIELDS else frozenset({self.field})

    @property
    def fields(self) -> dict[str, object]:
        """What the value gives: none or one field, as ``--set`` would."""
        if self.is_none:
            return {}
        return {MODE: "off"} if self.is_off else {self.field: self.text}


@dataclass(frozen=True)
class Axis:
    """A field and the values that it takes."""

    field: str
    values: tuple[AxisValue, ...]


@dataclass(frozen=True)
class Axes:
    """Columns, and rows where there are any."""

    x: Axis
    y: Axis | None = None

    @property
    def each(self) -> tuple[Axis, ...]:
        return (self.x, self.y) if self.y else (self.x,)

    @property
    def fields(self) -> frozenset[str]:
        return frozenset({self.x.field, self.y.field} if self.y else {self.x.field})

    @property
    def decided(self) -> frozenset[str]:
        """The fields that are not the same in all cells, or may not be."""
        values = (*self.x.values, *(self.y.values if self.y else ()))
        return frozenset().union(*(value.replaced for value in values))

    @property
    def num_cells(self) -> int:
        return len(self.x.values) * (len(self.y.values) if self.y else 1)

    @property
    def cells(self) -> Iterator[tuple[AxisValue, ...]]:
        """The values of each cell, x before y; from left to right, then from top to bottom."""
        if self.y is None:
            return ((x,) for x in self.x.values)
        return ((x, y) for y in self.y.values for x in self.x.values)


def filled(own: Mapping[str, object], cell: tuple[AxisValue, ...], defaults: Mapping[str, object]) -> dict[str, object]:
    """A row's own values with those of the cell in their place, and the defaults that both leave room for.

    Names are those of ``FIELDS``.
    """
    given: dict[str, object] = {}
    for value in cell:
        given |= value.fields
    if not START_FIELDS.isdisjoint(given):
        given.setdefault(MODE, "ensemble")
    foreign = FOREIGN_FIELDS.get(str(given.get(MODE)), frozenset())
    chosen = {field: value for field, value in given.items() if field not in foreign}
    found = overlaid(chosen, without_replaced(own, cell))
    return with_defaults(found, without_replaced(defaults, cell))


def without_replaced(values: Mapping[str, object], cell: tuple[AxisValue, ...]) -> dict[str, object]:
    """The values in whose place the cell puts none of its own."""
    replaced = frozenset().union(*(value.replaced for value in cell))
    return {field: value for field, value in values.items() if field not in replaced}


def parsed_axes(x: str, y: str | None) -> Axes:
    """``--x`` and ``--y`` as they were given.

    Raises:
        InputError: one of them is malformed, or both say the same thing.
    """
    axes = Axes(parsed_axis("--x", x), parsed_axis("--y", y) if y is not None else None)
    if axes.y is not None:
        check_both(("--x", axes.x), ("--y", axes.y))
    return axes


def parsed_axis(option: str, text: str, max_values: int = MAX_VALUES, word: str = "axis") -> Axis:
    """A field and its values, as an option gives them. Raises InputError."""
    name, sign, values = text.partition("=")
    field, given = normal_name(name), f"{option} {shown_value(text)}"
    if not sign or not field:
        raise InputError(f"{given}: an axis is FIELD=VALUE,VALUE, such as {option} refiner.start=off,0.8,0.9")
    if field not in FIELDS:
        raise InputError(f"{given}: there is no field {printable(name.strip())!r}; {known_fields(name)}")
    texts = _split(given, values)
    if holds_number(field):
        texts = (found for item in texts for found in _ranged(given, item, max_values))
    values_found = tuple(AxisValue(field, text, quoted, word) for text, quoted in texts)
    _check_values(given, values_found, max_values)
    return Axis(field, values_found)


def _ranged(given: str, item: tuple[str, bool], max_values: int) -> Iterator[tuple[str, bool]]:
    """The values of a range; everything else is one value."""
    text, quoted = item
    found = None if quoted else range_values(given, text, max_values)
    return iter([item] if found is None else [(value, False) for value in found])


def _split(given: str, text: str) -> Iterator[tuple[str, bool]]:
    """The values, and whether each stood in quotes."""
    place, more = 0, True
    while more:
        match = _VALUE.match(text, place)
        if match is None:
            rest = shown_value(text[place:])
            raise InputError(
                f"{given}: cannot tell where the value {rest} ends; one that has a comma or begins with a quote stands"
                ' in double quotes, and a quote in it is doubled: "a ""red"" fox, asleep"'
            )
        quoted, plain, comma = match.groups()
        yield (plain.rstrip(), False) if quoted is None else (quoted.replace('""', '"'), True)
        place, more = match.end(), bool(comma)


def _check_values(given: str, values: tuple[AxisValue, ...], max_values: int) -> None:
    if len(values) > max_values:
        raise InputError(f"{given}: an axis has at most {max_values:,} values, not {len(values):,}")
    if any(not value.text and not value.quoted for value in values):
        raise InputError(f'{given}: a value is empty; "" is the empty text, none leaves an optional field out')
    seen: set[tuple[tuple[str, object], ...]] = set()
    for value in values:
        content = tuple(value.fields.items())
        if content in seen:
            raise InputError(f"{given}: the value {value.label} stands there twice")
        seen.add(content)


def check_both(first: tuple[str, Axis], second: tuple[str, Axis]) -> None:
    """Two axes, each with the option that gave it. Raises InputError where both say the same thing."""
    (option, x), (other, y) = first, second
    given = f"{option} {x.field} and {other} {y.field}"
    if x.field == y.field:
        raise InputError(f"{given} are the same field; take another one for {other}, or leave it out")
    if {x.field, y.field} <= START_FIELDS:
        raise InputError(f"{given} both say where the refiner takes over; take one of them")
    if any(value.is_off for value in (*x.values, *y.values)) and MODE in (x.field, y.field):
        raise InputError(f"{given} both say whether there is a refiner; leave the value off to {MODE}")
