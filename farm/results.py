"""The rows of finished images (tables environments, images, results): for ``farm/ledger.py`` alone.

On PostgreSQL they are written where their jobs are moved, in one statement (``finishing``).
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import select

from farm.database import Transaction
from schemas.column_types import timed
from schemas.provenance import Environment
from schemas.records import ClaimedPack, FinishedImage
from schemas.tables import EnvironmentRow, Result


def are_recorded(tx: Transaction, pack: ClaimedPack, images: Sequence[FinishedImage]) -> bool:
    """Whether an earlier commit of the pack, whose answer was lost, has recorded all of these."""
    job_ids = {image.job_id for image in images}
    recorded = select(Result.job_id).where(Result.job_id.in_(job_ids), Result.pack_id == pack.id)
    return len(tx.execute(recorded).all()) == len(job_ids)


def note_environment(tx: Transaction, environment: Environment) -> None:
    """Its row, where there is none."""
    digest = environment.digest
    if tx.execute(select(EnvironmentRow.digest).where(EnvironmentRow.digest == digest)).first() is None:
        row = {"digest": digest, "content": environment.model_dump(mode="json")}
        tx.execute(tx.insert(EnvironmentRow).values(row).on_conflict_do_nothing())


def record(tx: Transaction, pack: ClaimedPack, environment: Environment, images: Sequence[FinishedImage]) -> None:
    """One image row and one result row each, on SQLite. A file that has a row already has the same bytes, for its URI
    carries their hash."""
    note_environment(tx, environment)
    given = written_rows(tx, pack, environment, images)
    tx.execute(_IMAGES, given)
    tx.execute(_RESULTS, given)


def written_rows(tx: Transaction, pack: ClaimedPack, environment: Environment, images: Sequence[FinishedImage]
                 ) -> dict[str, Any]:  # fmt: skip
    """What the statements take: all rows in one JSON text, and what they have in common."""
    rows = msgspec.json.encode([{**image.image_row(), **image.result_row()} for image in images]).decode()
    ours = {"environment": environment.digest, "worker": pack.worker_id, "pack": pack.id}
    return {**ours, "now": tx.given_now, "rows": rows}


_IMAGES: Final = timed(
    """
    INSERT INTO images (uri, sha256, pixel_sha256, size_bytes, width, height, format, spec_digest, pair_fingerprint,
                        created_at)
    SELECT value ->> 'uri', value ->> 'sha256', value ->> 'pixel_sha256', value ->> 'size_bytes', value ->> 'width',
           value ->> 'height', value ->> 'format', value ->> 'spec_digest', value ->> 'pair_fingerprint', :now
    FROM json_each(:rows) WHERE true
    ON CONFLICT (uri) DO NOTHING
    """,
    "now",
)
_RESULTS: Final = timed(
    """
    INSERT INTO results (job_id, image_id, environment_digest, provenance, worker_id, pack_id, attempt, render_seconds,
                         finish_seconds, finished_at)
    SELECT value ->> 'job_id', images.id, :environment, value -> 'provenance', :worker, :pack, value ->> 'attempt',
           value ->> 'render_seconds', value ->> 'finish_seconds', :now
    FROM json_each(:rows) JOIN images ON images.uri = value ->> 'uri'
    """,
    "now",
)
