"""What a manifest's line becomes: a row to render, or a bad row with the reason why not."""

import json
from dataclasses import dataclass

from msgspec import Struct

from schemas.printable import printable, printable_start
from schemas.spec import JobSpec
from schemas.written_spec import WrittenSpec

_SHOWN_CHARACTERS = 60


class Row(Struct, frozen=True, gc=False):
    """One image to render. ``line``: where the row starts in its file, from 1. ``repeat``: how many rows
    with the same spec came before it. ``meta``: the columns that are no field of a spec. ``meant``: as ``Columns`` has
    it."""

    line: int
    written: WrittenSpec
    repeat: int
    meta: dict[str, str]
    meant: tuple[tuple[str, str], ...] = ()

    @property
    def spec(self) -> JobSpec:
        """Made anew each time: what is asked of every row is asked of ``written``."""
        return self.written.spec


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be rendered. ``str()``: ``prompts.tsv:17: column "Width": "1001": is not divisible by 8; ...``

    There is one for each bad row: ``column`` and ``value`` are the first that is wrong, ``reason`` names the others
    too. ``column`` is None where the whole line is wrong, ``value`` where there is none to show.
    """

    file: str
    line: int
    column: str | None
    value: str | None
    reason: str

    def __str__(self) -> str:
        return f"{printable(self.file)}:{self.line}: {finding(self.column, self.value, self.reason)}"


def finding(column: str | None, value: str | None, reason: str) -> str:
    """``column "Width": "1001": is not ...``, without the parts that are None."""
    named = [f'column "{shown_value(column)}"'] if column is not None else []
    shown = [f'"{value}"'] if value is not None else []
    return ": ".join([*named, *shown, printable(reason)])


def shown_value(value: object) -> str:
    """The value as text, printable and at most about 80 characters; what JSON types other than text stand as JSON."""
    return printable_start(
        value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), _SHOWN_CHARACTERS
    )
