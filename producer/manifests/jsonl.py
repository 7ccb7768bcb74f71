"""JSONL: an object a line. ``"refiner": {"start": 0.9}`` and ``"refiner.start": 0.9`` are the same."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec

from producer.manifests.columns import GROUPS, Cells, Columns, columns_of, normal_name, quoted
from producer.manifests.lines import Line
from producer.manifests.rows import BadRow, shown_value
from schemas.errors import ManifestError
from schemas.nesting import nesting

MAX_NESTING: Final = 32

_TOO_DEEP: Final = f"the line is nested too deep; {MAX_NESTING} levels are the most"
#: as many shapes of rows as are remembered: each holds the names of its columns
_REMEMBERED: Final = 16


class _LineError(Exception):
    """The line is not an object that a row can be read from."""

    def __init__(self, reason: str, column: str | None = None, value: object = None) -> None:
        super().__init__(reason)
        self.column = column
        self.value = None if value is None else shown_value(value)


def json_rows(file: str, lines: Iterator[Line], mapping: Mapping[str, str]) -> Iterator[Cells | BadRow]:
    """A row for each line that is not blank. ``null`` is an absent value. ``file``: its name, printable.

    Raises:
        ManifestError: at the end, where no row had a column that ``mapping`` names.
    """
    unseen = set(mapping)

    @lru_cache(maxsize=_REMEMBERED)
    def columns(names: tuple[str, ...]) -> Columns:
        unseen.difference_update(normal_name(name) for name in names)
        return columns_of(names, mapping)

    for number, text, flaw in lines:
        if flaw:
            yield BadRow(file, number, None, None, f"the line {flaw}")
        elif text.strip():
            try:
                content = _content(text)
                yield Cells(number, columns(tuple(content)), list(content.values()))
            except _LineError as error:
                yield BadRow(file, number, error.column, error.value, str(error))
            except ManifestError as error:
                yield BadRow(file, number, None, None, str(error))
    if unseen:
        raise ManifestError(f"--map names {quoted(sorted(unseen))}, and no row of {file} has it")


def _content(text: str) -> dict[str, Any]:
    """The line's columns and their values."""
    content = _flat_object(text) or _parsed(text)
    return _ungrouped(content) if _has_groups(tuple(content)) else content


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        [(key, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise _LineError("stands twice in one object", key)
    return content


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique_keys)
_QUICK_DECODER: Final = msgspec.json.Decoder()


def _flat_object(text: str) -> dict[str, Any] | None:
    """The object, if it holds no other and certainly has each key once; None where that takes a closer look.

    msgspec keeps the last of two equal keys. Quotes tell: each key and each text has two, unless it is escaped.
    """
    if "\\\\" in text:
        return None
    try:
        content = _QUICK_DECODER.decode(text)
    except (ValueError, RecursionError):
        return None
    if type(content) is not dict:
        return None
    types = [*map(type, content.values())]
    if dict in types or list in types:
        return None
    num_quotes = text.count('"') - text.count('\\"')
    return content if num_quotes == 2 * (len(content) + types.count(str)) else None


def _parsed(text: str) -> dict[str, Any]:
    try:
        content = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise _LineError(f"the line is not JSON: {error.msg} at character {error.colno}") from None
    except RecursionError:
        raise _LineError(_TOO_DEEP) from None
    except ValueError:
        raise _LineError("the line has a number of too many digits") from None
    if not isinstance(content, dict):
        raise _LineError("the line is not a JSON object")
    # Brackets are counted first because prompts seldom have so many; the exact depth takes longer.
    if text.count("[") + text.count("{") > MAX_NESTING and nesting(content) > MAX_NESTING:
        raise _LineError(_TOO_DEEP)
    return content


@lru_cache(maxsize=_REMEMBERED)
def _has_groups(names: tuple[str, ...]) -> bool:
    return any(normal_name(name) in GROUPS for name in names)


def _ungrouped(content: dict[str, Any]) -> dict[str, Any]:
    """The object with the fields of its groups beside the others, under dotted names."""
    pairs: list[tuple[str, Any]] = []
    for key, value in content.items():
        pairs += _members(key, value) if normal_name(key) in GROUPS else [(key, value)]
    return _unique_keys(pairs)


def _members(group: str, nested: object) -> list[tuple[str, Any]]:
    if not isinstance(nested, dict | None):
        raise _LineError("should be an object", group, nested)
    return [(f"{group}.{key}", value) for key, value in (nested or {}).items()]
