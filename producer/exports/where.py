"""``--where "num_inference_steps>=30"``: which jobs are exported. A comparison each; nothing is run as code or SQL."""

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Self

from producer.exports.captions import known_columns, meta_value
from producer.exports.exported_fields import KINDS, META, Value
from producer.manifests.columns import normal_name
from schemas.errors import InputError, SpecError
from schemas.printable import printable, shown
from schemas.schedulers import named_scheduler

_COMPARISON: Final = re.compile(r"([^=!<>~]+)(>=|<=|!=|=|>|<|~)(.*)", re.S)
_ORDERS: Final[Mapping[str, Callable[[Any, Any], bool]]] = MappingProxyType(
    {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
)
_BOOLS: Final = MappingProxyType({"true": True, "false": False})
_WHOLE: Final = re.compile(r"[+-]?\d{1,30}")


@dataclass(frozen=True)
class Where:
    """One comparison. ``wanted``: several (column, value) where a scheduler's name says options, too. An empty value is
    none; ``~`` is a part of the text, whatever its case."""

    text: str
    sign: str
    wanted: tuple[tuple[str, Value], ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises InputError: what is wrong with it, and what would be right."""
        found = _COMPARISON.fullmatch(text)
        if found is None:
            raise InputError(
                f"--where {shown(text)} is no comparison; NAME=VALUE would be one, with = != < <= > >= or ~ (contains)"
            )
        column, sign, value = _column(found[1], text), found[2], found[3].strip()
        if column == "scheduler" and sign in ("=", "!=") and value:
            return cls(text, sign, _scheduler(value, text))
        return cls(text, sign, ((column, _wanted(column, sign, value, text)),))

    @property
    def meta_columns(self) -> list[str]:
        return [column for column, _ in self.wanted if column.startswith(META)]

    def holds(self, values: Mapping[str, Value], meta: Mapping[str, str]) -> bool:
        """Of a job with these columns."""
        if self.sign in ("=", "!="):
            same = all(_is(_value(column, values, meta), wanted) for column, wanted in self.wanted)
            return same == (self.sign == "=")
        ((column, wanted),) = self.wanted
        value = _value(column, values, meta)
        if value is None:
            return False
        if self.sign == "~":
            return str(wanted).casefold() in str(value).casefold()
        return _ORDERS[self.sign](_number(value), wanted)


def _column(name: str, text: str) -> str:
    stripped = name.strip()
    column = stripped if stripped.startswith(META) and stripped != META else normal_name(stripped)
    if column not in KINDS and (column == META or not column.startswith(META)):
        raise InputError(f"--where {shown(text)}: there is no column {shown(stripped)}; {known_columns()}")
    return column


def _scheduler(name: str, text: str) -> tuple[tuple[str, Value], ...]:
    try:
        class_name, options = named_scheduler(name)
    except SpecError as error:
        raise InputError(f"--where {printable(text)}: {error}") from None
    return ("scheduler", class_name), *((f"scheduler_options.{option}", value) for option, value in options.items())


def _wanted(column: str, sign: str, value: str, text: str) -> Value:
    kind = "number" if column == "seed" else KINDS.get(column, "text")
    if sign in _ORDERS:
        if kind in ("bool", "text") and not column.startswith(META):
            raise InputError(f"--where {shown(text)}: {column} has no order; = != and ~ are for it")
        return _parsed_number(value, text)
    if sign == "~":
        if not value:
            raise InputError(f"--where {shown(text)}: every text contains an empty one; leave it out")
        return value
    if not value:
        return None
    if kind == "bool":
        if value.lower() not in _BOOLS:
            raise InputError(f"--where {shown(text)}: {column} is true or false, not {shown(value)}")
        return _BOOLS[value.lower()]
    return value if kind == "text" else _parsed_number(value, text)


def _parsed_number(value: str, text: str) -> int | float:
    if _WHOLE.fullmatch(value):
        return int(value)
    try:
        number = float(value if "_" not in value else "")
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"--where {shown(text)}: {shown(value)} is not a number")
    return number


def _value(column: str, values: Mapping[str, Value], meta: Mapping[str, str]) -> Value:
    value = meta_value(meta, column) if column.startswith(META) else values[column]
    return int(str(value)) if column == "seed" else value


def _is(value: Value, wanted: Value) -> bool:
    if wanted is None:
        return value is None or value == ""
    return value == wanted


def _number(value: Value) -> float | int:
    """Of a meta column, whatever is no number is beyond every comparison."""
    if isinstance(value, str):
        if _WHOLE.fullmatch(value.strip()):
            return int(value)
        try:
            return float(value)
        except ValueError:
            return math.nan
    return value if value is not None else math.nan
