"""Rows that a program gives: mappings, as the objects of a JSONL file, or whole ``JobSpec``s."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from producer.manifests.columns import Cells
from producer.manifests.jsonl import json_rows
from producer.manifests.lines import MAX_LINE_BYTES, Line
from producer.manifests.rows import BadRow
from schemas.printable import printable_start, shown
from schemas.spec import JobSpec

#: what takes the place of a file's name where a row is named
ROWS: Final = "rows"

_IS_TOO_LONG: Final = "is longer than 1 MB as JSON"
_IS_TOO_DEEP: Final = "is nested too deep"
_IS_COMPLETE: Final = "is a JobSpec, which is complete: defaults would change it; give a mapping, or no defaults"
_THE_LINE: Final = "the line "


def mapping_rows(items: Iterable[object], mapping: Mapping[str, str], *, takes_specs: bool) -> Iterator[Cells | BadRow]:
    """A row for each item, numbered from 1. What is no mapping of text to JSON's types is a bad row.

    A ``JobSpec`` gives every field in which it differs from a spec's own defaults. ``takes_specs``: False where others
    would fill those fields, for a spec is complete.

    Raises:
        ManifestError: at the end, where no row had a column that ``mapping`` names.
    """
    for row in json_rows(ROWS, _lines(items, takes_specs), mapping):
        if isinstance(row, BadRow) and row.reason.startswith(_THE_LINE):
            yield replace(row, reason=f"the row {row.reason.removeprefix(_THE_LINE)}")
        else:
            yield row


def _lines(items: Iterable[object], takes_specs: bool) -> Iterator[Line]:
    """Each item as the line of JSON that stands for it: one reader judges both."""
    for number, item in enumerate(items, 1):
        if isinstance(item, JobSpec):
            yield Line(number, item.canonical, "" if takes_specs else _IS_COMPLETE)
        else:
            yield Line(number, *_as_json(item))


def _as_json(item: object) -> tuple[str, str]:
    if not isinstance(item, Mapping):
        return "", f"should be a mapping or a JobSpec, not {shown(item)}"
    if strange := [key for key in item if not isinstance(key, str)]:
        return "", f"has the key {shown(strange[0])}; keys are text"
    try:
        text = json.dumps(dict(item), ensure_ascii=False)
    except RecursionError:
        return "", _IS_TOO_DEEP
    except (TypeError, ValueError):
        return "", _flaw(item)
    return ("", _IS_TOO_LONG) if len(text) > MAX_LINE_BYTES else (text, "")


def _flaw(item: Mapping[Any, Any]) -> str:
    """Which value of the row is none of JSON's."""
    for key, value in item.items():
        name = printable_start(key, 60)
        try:
            json.dumps(value)
        except TypeError:
            return f'has in "{name}" {shown(value)}: JSON has no type for it'
        except ValueError:
            return f'has in "{name}" a number of too many digits, or something that holds itself'
    raise AssertionError("unreachable")
