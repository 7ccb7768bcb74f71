"""Advice about a manifest's rows: each kind once, with how many rows it concerns, so that memory does not grow."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from producer.manifests.rows import BadRow, Row, shown_value
from schemas.advice import Advice, advice
from schemas.pair import SYNTHETIC, ModelPair
from schemas.written_spec import SpecKind

_UNREAD: Final = "unread_column"


@dataclass(frozen=True)
class Warned:
    """One kind of advice. ``sentence`` is about the row at ``first_line`` of the manifest."""

    code: str
    num_rows: int
    first_line: int
    sentence: str

    def __str__(self) -> str:
        """``warning: 12 rows (first: line 3): 640×480 is ...``"""
        rows = (
            f"line {self.first_line}" if self.num_rows == 1 else f"{self.num_rows} rows (first: line {self.first_line})"
        )
        return f"warning: {rows}: {self.sentence}"


class CountedAdvice:
    """Looks at rows as they pass. On specs for a pair with random weights, which was trained for nothing, it has no
    advice."""

    def __init__(self, pair: ModelPair) -> None:
        self._trained = not pair.base.source.startswith(SYNTHETIC)
        self._by_kind: dict[str, Warned] = {}

    @property
    def warnings(self) -> list[Warned]:
        """One for each kind, in the order in which they came up first."""
        return list(self._by_kind.values())

    def passed(self, rows: Iterable[Row | BadRow]) -> Iterator[Row | BadRow]:
        """The same rows. Bad ones need no advice: they are refused, or left out."""
        kind: SpecKind | None = None
        of_kind: tuple[Advice, ...] = ()
        for row in rows:
            if isinstance(row, Row):
                if row.written.kind is not kind:  # most rows are of the kind of the one before
                    kind = row.written.kind
                    of_kind = advice(kind.sample) if self._trained else ()
                if of_kind or row.meant:
                    self._note(row, of_kind)
            yield row

    def _note(self, row: Row, of_kind: Iterable[Advice]) -> None:
        for found in of_kind:
            self._count(row, found.code, found)
        for column, field in row.meant:
            if column in row.meta:
                self._count(row, f"{_UNREAD} {field}", Advice(_UNREAD, _unread(column, field)))

    def _count(self, row: Row, kind: str, found: Advice) -> None:
        first = self._by_kind.get(kind, Warned(found.code, 0, row.line, found.sentence))
        self._by_kind[kind] = replace(first, num_rows=first.num_rows + 1)


def _unread(column: str, field: str) -> str:
    shown = shown_value(column)
    return f'column "{shown}" is meta, and decides no pixel; if it is {field}, say --map "{shown}={field}"'
