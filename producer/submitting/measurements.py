"""What the ledger has measured, for `nightshift plan`: how fast live workers are, how large files are, what exists."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import Row, func, select

from farm.database import Database, Transaction, question
from farm.workers import is_live
from producer.questions.measured_packs import COLUMNS, measured, not_too_many
from producer.questions.pace import MeasuredPack
from schemas.states import BatchState, PackState
from schemas.tables import Batch, Image, Pack, Worker

#: A worker that lives was as fast yesterday as it is now; its first packs of long ago may have been of another kind.
_RECENT: Final = timedelta(days=1)
_LAST_PACKS: Final = 1_000
_MOST_JOBS: Final = 20_000
_LAST_IMAGES: Final = 10_000

#: width, height and format of a file
FileKind = tuple[int, int, str]


def recent_packs(database: Database, pair: str, seen_within_seconds: float) -> list[MeasuredPack]:
    """The last packs that live workers of the pair have finished, the youngest first."""
    return measured(database, not_too_many(_recent(database, pair, seen_within_seconds), _MOST_JOBS))


@question
def _recent(tx: Transaction, pair: str, seen_within_seconds: float) -> Sequence[Row[Any]]:
    finished = (Pack.pair == pair, Pack.state == PackState.FINISHED)
    recent = (Pack.ended_at > tx.now - _RECENT, is_live(tx, seen_within_seconds))
    packs = select(*COLUMNS).join(Worker, Worker.id == Pack.worker_id).where(*finished, *recent)
    return tx.execute(packs.order_by(Pack.ended_at.desc()).limit(_LAST_PACKS)).all()


@question
def jobs_before(tx: Transaction, pair: str) -> int:
    """How many jobs of the pair wait or run in open batches."""
    left = func.sum(Batch.num_pending + Batch.num_queued + Batch.num_running)
    return tx.execute(select(left).where(Batch.pair == pair, Batch.state == BatchState.OPEN)).scalar_one() or 0


@question
def mean_file_bytes(tx: Transaction, pair_fingerprint: str) -> dict[FileKind, float]:
    """Of the files that these weights made, among the last images of the ledger."""
    columns = (Image.width, Image.height, Image.format, Image.size_bytes, Image.pair_fingerprint)
    last = select(*columns).order_by(Image.id.desc()).limit(_LAST_IMAGES).subquery()
    kind = (last.c.width, last.c.height, last.c.format)
    ours = last.c.pair_fingerprint == pair_fingerprint
    rows = tx.execute(select(*kind, func.avg(last.c.size_bytes).label("mean")).where(ours).group_by(*kind))
    return {(row.width, row.height, row.format): float(row.mean) for row in rows}


@question
def recorded_images(tx: Transaction, pair_fingerprint: str, spec_digests: Sequence[str]) -> list[tuple[str, str]]:
    """Spec digest and URI of every image that these weights made of these specs. A spec may have several."""
    made = (Image.spec_digest.in_(spec_digests), Image.pair_fingerprint == pair_fingerprint)
    return [(row.spec_digest, row.uri) for row in tx.execute(select(Image.spec_digest, Image.uri).where(*made))]
