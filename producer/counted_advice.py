"""Advice about a manifest's rows: each kind once, with how many rows it concerns, so that memory does not grow."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from producer.rows import BadRow, Row
from schemas.advice import Advice, advice
from schemas.pair import SYNTHETIC, ModelPair
from schemas.written_spec import SpecKind


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
    """Looks at rows as they pass. For a pair with random weights, which was trained for nothing, it has no advice."""

    def __init__(self, pair: ModelPair) -> None:
        self._trained = not pair.base.source.startswith(SYNTHETIC)
        self._by_code: dict[str, Warned] = {}

    @property
    def warnings(self) -> list[Warned]:
        """One for each kind, in the order in which they came up first."""
        return list(self._by_code.values())

    def passed(self, rows: Iterable[Row | BadRow]) -> Iterator[Row | BadRow]:
        """The same rows. Bad ones need no advice: they are refused, or left out."""
        if not self._trained:
            yield from rows
            return
        kind: SpecKind | None = None
        of_kind: tuple[Advice, ...] = ()
        for row in rows:
            if isinstance(row, Row):
                if row.written.kind is not kind:  # most rows are of the kind of the one before
                    kind = row.written.kind
                    of_kind = advice(kind.sample)
                if of_kind:
                    self._count(row, of_kind)
            yield row

    def _count(self, row: Row, of_kind: Iterable[Advice]) -> None:
        for found in of_kind:
            first = self._by_code.get(found.code, Warned(found.code, 0, row.line, found.sentence))
            self._by_code[found.code] = replace(first, num_rows=first.num_rows + 1)
