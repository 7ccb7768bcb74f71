"""Finished images, recorded by one statement: on PostgreSQL, for ``farm/ledger.py`` alone.

Tables: environments, images, results, jobs, packs, batches. A round trip costs the server as much as several of the
rows that it writes, and there would be eight of them.
"""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import ARRAY, BigInteger, bindparam

from farm.database import Transaction
from farm.results import note_environment, written_rows
from schemas.column_types import timed
from schemas.provenance import Environment
from schemas.records import ClaimedPack, FinishedImage


def finish_at_once(tx: Transaction, pack: ClaimedPack, environment: Environment, images: Sequence[FinishedImage]
                   ) -> bool:  # fmt: skip
    """running → done, with an image row and a result row each, the pack's end and its batch's counters. False where
    nothing was done: the worker has lost the pack, or one of the jobs is no longer in it."""
    job_ids = sorted({image.job_id for image in images})
    given = {**written_rows(tx, pack, environment, images), "job_ids": job_ids, "num_given": len(job_ids)}
    num_done = tx.execute(_FINISH, given).scalar_one_or_none()
    if num_done is None:  # lost, or the environment was not known yet
        note_environment(tx, environment)
        num_done = tx.execute(_FINISH, given).scalar_one_or_none()
    return bool(num_done)


# Each part waits for the one before it, so that the locks come in their order. ``held`` and ``unfinished`` lock, and
# see what others have committed while they waited; the counters, for which every other worker of the batch waits, are
# last. Images in the order of their URIs, or two packs with some in common might wait for each other. One that has a
# row already is the same file, for its URI carries its hash.
_FINISH: Final = timed(
    """
    WITH given AS MATERIALIZED (
        SELECT * FROM json_to_recordset(:rows) AS given (
            job_id bigint, uri text, sha256 text, pixel_sha256 text, size_bytes int, width int, height int, format text,
            spec_digest text, pair_fingerprint text, provenance json, attempt int, render_seconds float8,
            finish_seconds float8)
    ), held AS MATERIALIZED (
        SELECT id, batch_id FROM packs WHERE id = :pack AND worker_id = :worker AND state = 'running'
            AND EXISTS (SELECT 1 FROM environments WHERE digest = :environment)
        FOR UPDATE
    ), unfinished AS MATERIALIZED (
        SELECT jobs.id FROM held JOIN jobs ON jobs.pack_id = held.id WHERE jobs.state = 'queued'
        ORDER BY jobs.id FOR UPDATE OF jobs
    ), found AS MATERIALIZED (
        SELECT count(*) AS num_left, count(*) FILTER (WHERE id = ANY (:job_ids)) AS num_given FROM unfinished
    ), ready AS MATERIALIZED (
        SELECT * FROM given WHERE (SELECT num_given FROM found) = :num_given
    ), ended_jobs AS (
        UPDATE jobs SET state = 'done', error = NULL, error_code = NULL, traceback = NULL, retry_at = NULL
        FROM ready WHERE jobs.id = ready.job_id
        RETURNING jobs.id
    ), files AS (
        INSERT INTO images (uri, sha256, pixel_sha256, size_bytes, width, height, format, spec_digest, pair_fingerprint,
                            created_at)
        SELECT DISTINCT ON (uri) uri, sha256, pixel_sha256, size_bytes, width, height, format, spec_digest,
               pair_fingerprint, coalesce(:now, statement_timestamp())
        FROM ready ORDER BY uri
        ON CONFLICT (uri) DO UPDATE SET sha256 = excluded.sha256
        RETURNING id, uri
    ), recorded AS (
        INSERT INTO results (job_id, image_id, environment_digest, provenance, worker_id, pack_id, attempt,
                             render_seconds, finish_seconds, finished_at)
        SELECT job_id, files.id, :environment, provenance, :worker, :pack, attempt, render_seconds, finish_seconds,
               coalesce(:now, statement_timestamp())
        FROM ready JOIN files USING (uri)
        RETURNING job_id
    ), ended_packs AS (
        UPDATE packs SET state = 'finished', ended_at = coalesce(:now, statement_timestamp())
        FROM held, found WHERE packs.id = held.id AND num_given = :num_given AND num_left = num_given
        RETURNING packs.id
    )
    UPDATE batches SET num_running = num_running - finished.num_done, num_done = batches.num_done + finished.num_done
    FROM held, (SELECT count(*) AS num_done FROM recorded) AS finished,
         (SELECT count(*) FROM ended_jobs) AS jobs_before, (SELECT count(*) FROM ended_packs) AS packs_before
    WHERE batches.id = held.batch_id
    RETURNING finished.num_done
    """,
    "now",
).bindparams(bindparam("job_ids", type_=ARRAY(BigInteger)))
