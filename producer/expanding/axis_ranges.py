"""Ranges of an axis: ``4:8:1`` is 4, 5, 6, 7, 8. The end is one of the values when a step lands on it."""

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from schemas.errors import InputError

#: So few digits that decimal arithmetic, which has 28, is exact: 0.1:0.3:0.1 ends at 0.3.
_NUMBER: Final = r"\s*(-?\d{1,20}(?:\.\d{1,7})?)\s*"
_RANGE: Final = re.compile(f"{_NUMBER}:{_NUMBER}:{_NUMBER}")


def range_values(given: str, text: str, max_values: int) -> Sequence[str] | None:
    """The values from start to end, or None where the text is no range. ``given`` begins sentences.

    Raises:
        InputError: the step leads nowhere, or the range has more values than ``max_values``.
    """
    match = _RANGE.fullmatch(text)
    if match is None:
        return None
    start, end, step = map(Decimal, match.groups())
    if not step or (end - start) * step < 0:
        raise InputError(f"{given}: the range {text} never arrives: from {start} steps of {step} do not lead to {end}")
    num = int((end - start) // step) + 1
    if num > max_values:
        raise InputError(f"{given}: the range {text} has {num:,} values; an axis has at most {max_values:,}")
    return [_written(start + n * step) for n in range(num)]


def _written(number: Decimal) -> str:
    """Without an exponent or zeros at the end: a whole number stays one."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
