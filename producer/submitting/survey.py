"""Reading a manifest to its end without submitting it: how many rows of which kind, and how many exist already.

Asks the ledger and the image store, and changes neither. Memory grows with the kinds of rows, and not with the rows.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, NamedTuple

from farm.database import Database
from producer.manifests.rows import BadRow, Row
from producer.submitting.linking import StoredImages
from producer.submitting.measurements import recorded_images
from producer.submitting.submit import SHOWN_BAD_ROWS
from schemas.pack_key import shape_of

_CHUNK: Final = 1_000


class RowKind(NamedTuple):
    """What rows have in common that cost the same: the shape of their packs, and what files they become."""

    #: without what is told to a pass, such as its guidance: that may be another for each row
    pack_key: str
    width: int
    height: int
    format: str
    lossless: bool


@dataclass
class Survey:
    """``to_render``: how many rows of each kind are to be rendered. ``num_existing``: None where nobody could look."""

    num_valid: int = 0
    num_bad: int = 0
    first_bad: list[BadRow] = field(default_factory=list)
    to_render: Counter[RowKind] = field(default_factory=Counter)
    num_existing: int | None = None


class Existing:
    """Looks for images of these weights in a store, as ``link_existing`` does for jobs."""

    def __init__(self, database: Database, stored: StoredImages, pair_fingerprint: str) -> None:
        self._database = database
        self._stored = stored
        self._pair_fingerprint = pair_fingerprint

    def among(self, spec_digests: Sequence[str]) -> set[str]:
        """Those whose image lies in the store. Raises as ``StoredImages.lie_there``."""
        images = recorded_images(self._database, self._pair_fingerprint, spec_digests)
        there = self._stored.lie_there(uri for _, uri in images) if images else []
        return {digest for (digest, _), is_there in zip(images, there, strict=True) if is_there}


def survey(rows: Iterable[Row | BadRow], existing: Existing | None) -> Survey:
    """Reads all rows. ``existing``: None where no image is to be, or can be, looked for."""
    found = Survey(num_existing=None if existing is None else 0)
    good = _good(rows, found)
    while chunk := list(islice(good, _CHUNK)):
        exist = existing.among([row.written.digest for row in chunk]) if existing else set()
        left = [row for row in chunk if row.written.digest not in exist]
        found.num_valid += len(chunk)
        found.to_render.update(map(_kind, left))
        if found.num_existing is not None:
            found.num_existing += len(chunk) - len(left)
    return found


def _good(rows: Iterable[Row | BadRow], found: Survey) -> Iterator[Row]:
    for row in rows:
        if isinstance(row, Row):
            yield row
            continue
        found.num_bad += 1
        if len(found.first_bad) < SHOWN_BAD_ROWS:
            found.first_bad.append(row)


def _kind(row: Row) -> RowKind:
    """Of its ``SpecKind``: neither prompt nor seed decides any of it."""
    kind = row.written.kind
    spec = kind.sample
    return RowKind(shape_of(kind.pack_key), spec.width, spec.height, spec.output.format, spec.output.lossless)
