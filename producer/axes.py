"""Axes of a grid: which values a field takes across the columns or down the rows, and what they replace in a row.

An axis wins over the row and over ``--set``, and what says nothing beside it is dropped, as a default gives way to a
row. One that says where the refiner takes over, or in which mode, decides the refiner's mode, and drops the refiner's
fields of the other axis too: a comparison with and without the refiner would otherwise be refused for what belongs to
the other half of it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from producer.columns import FIELDS, known_fields, normal_name
from producer.defaults import FOREIGN_FIELDS, MODE, START_FIELDS, overlaid, with_defaults
from producer.rows import shown_value
from schemas.errors import InputError
from schemas.printable import printable
from schemas.spec import JobSpec

MAX_VALUES: Final = 20

#: In double quotes, doubled inside, or up to the next comma; then that comma, or the end.
_VALUE: Final = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^",\s][^,]*|))\s*(,|$)')
#: What ``none`` leaves out may have no default of its own.
_NO_DEFAULT: Final = (None, ())


@dataclass(frozen=True)
class AxisValue:
    """One value, as text. ``quoted``: it stands in quotes, and so ``off`` and ``none`` are text."""

    field: str
    text: str
    quoted: bool = False

    def __str__(self) -> str:
        """``refiner.start=0.8``, printable and of bounded length."""
        return f"{printable(self.field)}={self.label}"

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
        return self._is_word("none") and _may_be_absent(self.field)

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
    axes = Axes(_parsed("--x", x), _parsed("--y", y) if y is not None else None)
    if axes.y is not None:
        _check_both(axes.x, axes.y)
    return axes


def _parsed(option: str, text: str) -> Axis:
    name, sign, values = text.partition("=")
    field, given = normal_name(name), f"{option} {shown_value(text)}"
    if not sign or not field:
        raise InputError(f"{given}: an axis is FIELD=VALUE,VALUE, such as {option} refiner.start=off,0.8,0.9")
    if field not in FIELDS:
        raise InputError(f"{given}: there is no field {printable(name.strip())!r}; {known_fields()}")
    found = tuple(AxisValue(field, value, quoted) for value, quoted in _split(given, values))
    _check_values(given, found)
    return Axis(field, found)


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


def _check_values(given: str, values: tuple[AxisValue, ...]) -> None:
    if len(values) > MAX_VALUES:
        raise InputError(f"{given}: an axis has at most {MAX_VALUES} values, not {len(values)}")
    if any(not value.text and not value.quoted for value in values):
        raise InputError(f'{given}: a value is empty; "" is the empty text, none leaves an optional field out')
    twice = next((b for n, b in enumerate(values) if any(a.fields == b.fields for a in values[:n])), None)
    if twice is not None:
        raise InputError(f"{given}: the value {twice.label} stands there twice")


def _check_both(x: Axis, y: Axis) -> None:
    given = f"--x {x.field} and --y {y.field}"
    if x.field == y.field:
        raise InputError(f"{given} are the same field; take another one for --y, or leave it out")
    if {x.field, y.field} <= START_FIELDS:
        raise InputError(f"{given} both say where the refiner takes over; take one of them")
    if any(value.is_off for value in (*x.values, *y.values)) and MODE in (x.field, y.field):
        raise InputError(f"{given} both say whether there is a refiner; leave the value off to {MODE}")


def _may_be_absent(field: str) -> bool:
    """Whether a spec without the field has none, rather than a default."""
    group, dot, name = field.partition(".")
    if field in START_FIELDS or group not in JobSpec.model_fields:
        return False
    fields: Mapping[str, Any] = JobSpec.model_fields
    if dot:
        fields = getattr(JobSpec.model_fields[group].annotation, "model_fields", {})
    # The scheduler's options are no model's fields: each may be absent.
    return fields[name or group].default in _NO_DEFAULT if fields else True
