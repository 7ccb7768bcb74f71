"""Rows of a manifest that a schedule reads: what differs from firing to firing is put into them."""

from collections.abc import Iterator, Mapping

from msgspec.structs import replace

from producer.manifests.columns import Cells
from producer.manifests.rows import BadRow
from schemas.placeholders import filled


def with_placeholders(rows: Iterator[Cells | BadRow], values: Mapping[str, str]) -> Iterator[Cells | BadRow]:
    """The rows with ``{date}`` and its like replaced in every cell of text, of fields and meta alike."""
    return (row if isinstance(row, BadRow) else _filled(row, values) for row in rows) if values else rows


def _filled(row: Cells, values: Mapping[str, str]) -> Cells:
    cells = [filled(cell, values) if isinstance(cell, str) else cell for cell in row.values]
    return replace(row, values=cells)
