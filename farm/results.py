"""The rows of finished images (tables environments, images, results); their jobs are moved in ``farm/ledger.py``."""

from collections.abc import Collection, Sequence
from typing import Final

import msgspec
from sqlalchemy import bindparam, select, text

from farm.database import Transaction
from schemas.column_types import Utc
from schemas.provenance import Environment
from schemas.records import ClaimedPack, FinishedImage
from schemas.tables import EnvironmentRow, Result


def are_recorded(tx: Transaction, pack: ClaimedPack, job_ids: Collection[int]) -> bool:
    """Whether an earlier commit of the pack, whose answer was lost, has recorded all of these jobs."""
    recorded = select(Result.job_id).where(Result.job_id.in_(job_ids), Result.pack_id == pack.id)
    return len(tx.execute(recorded).all()) == len(job_ids)


def record(tx: Transaction, pack: ClaimedPack, environment: Environment, images: Sequence[FinishedImage]) -> None:
    """One image row and one result row each. A file that has a row already has the same bytes, for its URI carries
    their hash."""
    digest = environment.digest
    if tx.execute(select(EnvironmentRow.digest).where(EnvironmentRow.digest == digest)).first() is None:
        row = {"digest": digest, "content": environment.model_dump(mode="json")}
        tx.execute(tx.insert(EnvironmentRow).values(row).on_conflict_do_nothing())
    rows = msgspec.json.encode([{**image.image_row(), **image.result_row()} for image in images]).decode()
    ours = {"environment": digest, "worker": pack.worker_id, "pack": pack.id, "now": tx.given_now, "rows": rows}
    for insertion in _INSERTIONS[tx.dialect]:
        tx.execute(insertion, ours)


# In the order of their URIs, or two packs with images in common might wait for each other.
_IMAGES_SQLITE: Final = text(
    """
    INSERT INTO images (uri, sha256, pixel_sha256, size_bytes, width, height, format, spec_digest, pair_fingerprint,
                        created_at)
    SELECT value ->> 'uri', value ->> 'sha256', value ->> 'pixel_sha256', value ->> 'size_bytes', value ->> 'width',
           value ->> 'height', value ->> 'format', value ->> 'spec_digest', value ->> 'pair_fingerprint', :now
    FROM json_each(:rows) WHERE true
    ON CONFLICT (uri) DO NOTHING
    """
).bindparams(bindparam("now", type_=Utc))
_RESULTS_SQLITE: Final = text(
    """
    INSERT INTO results (job_id, image_id, environment_digest, provenance, worker_id, pack_id, attempt, render_seconds,
                         finish_seconds, finished_at)
    SELECT value ->> 'job_id', images.id, :environment, value -> 'provenance', :worker, :pack, value ->> 'attempt',
           value ->> 'render_seconds', value ->> 'finish_seconds', :now
    FROM json_each(:rows) JOIN images ON images.uri = value ->> 'uri'
    """
).bindparams(bindparam("now", type_=Utc))
_POSTGRESQL: Final = text(
    """
    WITH given AS MATERIALIZED (
        SELECT * FROM json_to_recordset(:rows) AS given (
            job_id bigint, uri text, sha256 text, pixel_sha256 text, size_bytes int, width int, height int, format text,
            spec_digest text, pair_fingerprint text, provenance json, attempt int, render_seconds float8,
            finish_seconds float8)
    ), files AS (
        INSERT INTO images (uri, sha256, pixel_sha256, size_bytes, width, height, format, spec_digest, pair_fingerprint,
                            created_at)
        SELECT DISTINCT ON (uri) uri, sha256, pixel_sha256, size_bytes, width, height, format, spec_digest,
               pair_fingerprint, coalesce(:now, statement_timestamp())
        FROM given ORDER BY uri
        ON CONFLICT (uri) DO UPDATE SET sha256 = excluded.sha256
        RETURNING id, uri
    )
    INSERT INTO results (job_id, image_id, environment_digest, provenance, worker_id, pack_id, attempt, render_seconds,
                         finish_seconds, finished_at)
    SELECT job_id, files.id, :environment, provenance, :worker, :pack, attempt, render_seconds, finish_seconds,
           coalesce(:now, statement_timestamp())
    FROM given JOIN files USING (uri)
    """
).bindparams(bindparam("now", type_=Utc))
_INSERTIONS: Final = {"sqlite": (_IMAGES_SQLITE, _RESULTS_SQLITE), "postgresql": (_POSTGRESQL,)}
