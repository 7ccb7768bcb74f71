"""The release of packs, many at a time: for ``farm/ledger.py`` alone, and its transaction."""

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import TextClause, text

from farm.database import Transaction
from farm.moves import check_move
from farm.packing import PackOfJobs, joined, packs_of
from schemas.column_types import timed
from schemas.pack_key import shape_of
from schemas.records import ReleasedPack
from schemas.states import JobState


def next_packs(tx: Transaction, batch_id: int, num_packs: int, pack_size: int) -> list[PackOfJobs]:
    """What the next packs of the batch hold, if it is open, of its oldest pending jobs. Their rows are locked."""
    oldest, _ = _PENDING[tx.dialect]
    asked = {"batch_id": batch_id, "now": tx.given_now}
    rows = tx.execute(oldest, {**asked, "limit": num_packs * pack_size}).all()
    by_key = packs_of(rows, pack_size)
    if len(rows) < num_packs * pack_size:
        return joined(by_key, pack_size)[:num_packs]
    # Further back in the batch there may be more of their keys; only where there is not, others are needed beside them.
    made: list[PackOfJobs] = []
    for lot in (by_key[:num_packs], by_key[num_packs:]):
        _fill_up(tx, asked, [jobs for jobs in lot if jobs.takes_more(pack_size)], pack_size)
        made = joined([*made, *lot], pack_size)
        if sum(not jobs.takes_more(pack_size) for jobs in made) >= num_packs:
            break
    return made[:num_packs]


def _fill_up(tx: Transaction, asked: Mapping[str, Any], short: Sequence[PackOfJobs], pack_size: int) -> None:
    """With more jobs of their keys. PostgreSQL is asked once for all of them."""
    more = _PENDING[tx.dialect][1]
    wanted = [
        {"place": place, "key": jobs.pack_key, "after": jobs.ids[-1], "missing": pack_size - len(jobs.ids)}
        for place, jobs in enumerate(short)
    ]
    if tx.dialect == "postgresql":
        text_of_all = msgspec.json.encode(wanted).decode()
        found = tx.execute(more, {**asked, "wanted": text_of_all}).all() if wanted else ()
    else:
        found = [row for one in wanted for row in tx.execute(more, {**asked, **one})]
    for row in found:
        short[row.place].ids.append(row.id)


def queue_jobs(tx: Transaction, batch_id: int, made: Sequence[PackOfJobs], start_before: datetime | None
               ) -> list[ReleasedPack]:  # fmt: skip
    """pending → queued: makes the packs, all at once. Of a pack the ledger knows the shape, to which devices keep."""
    check_move(JobState.PENDING, JobState.QUEUED)
    packs = [ReleasedPack(uuid.uuid4().hex, len(jobs.ids), shape_of(jobs.pack_key)) for jobs in made]
    rows = [{**vars(pack), "jobs": jobs.ids} for pack, jobs in zip(packs, made, strict=True)]
    num_jobs = sum(pack.num_jobs for pack in packs)
    given = {"packs": msgspec.json.encode(rows).decode(), "num_jobs": num_jobs, "batch_id": batch_id}
    for statement in _QUEUE[tx.dialect]:
        tx.execute(statement, {**given, "now": tx.given_now, "start_before": start_before})
    return packs


def _pending(now: str, lock: str, more: str) -> tuple[TextClause, TextClause]:
    """The oldest ones, and more of a key, or of several."""
    oldest = """
        SELECT id, pack_key, isolated FROM jobs WHERE batch_id = :batch_id AND state = 'pending' AND {waits_no_more}
            AND EXISTS (SELECT 1 FROM batches WHERE batches.id = :batch_id AND batches.state = 'open')
        ORDER BY isolated, id LIMIT :limit {lock}
    """
    words = {"waits_no_more": f"(retry_at IS NULL OR retry_at <= {now})", "lock": lock}
    return timed(oldest.format(**words), "now"), timed(more.format(**words), "now")


_MORE_OF_A_KEY: Final = """
    SELECT :place AS place, id FROM jobs WHERE batch_id = :batch_id AND state = 'pending' AND {waits_no_more}
        AND NOT isolated AND pack_key = :key AND id > :after
    ORDER BY id LIMIT :missing
"""
_MORE_OF_ALL: Final = """
    SELECT place, id
    FROM json_to_recordset(:wanted) AS wanted (place int, key text, after bigint, missing int)
    CROSS JOIN LATERAL (
        SELECT id FROM jobs WHERE batch_id = :batch_id AND state = 'pending' AND {waits_no_more}
            AND NOT isolated AND pack_key = wanted.key AND id > after
        ORDER BY id LIMIT missing {lock}
    ) AS found
"""
_NOW: Final = "coalesce(:now, statement_timestamp())"
_PENDING: Final = {
    "sqlite": _pending(":now", "", _MORE_OF_A_KEY),
    "postgresql": _pending(_NOW, "FOR UPDATE OF jobs", _MORE_OF_ALL),
}
_COUNT: Final = """
    UPDATE batches SET num_pending = num_pending - :num_jobs, num_queued = num_queued + :num_jobs WHERE id = :batch_id
"""
_MADE_SQLITE: Final = """
    INSERT INTO packs (id, batch_id, pair, pack_key, state, num_jobs, released_at, start_before)
    SELECT value ->> 'id', batches.id, batches.pair, value ->> 'pack_key', 'queued', value ->> 'num_jobs', :now,
           :start_before
    FROM json_each(:packs), batches WHERE batches.id = :batch_id
"""
_QUEUED_SQLITE: Final = """
    UPDATE jobs SET state = 'queued', pack_id = made.pack_id
    FROM (SELECT pack.value ->> 'id' AS pack_id, job.value AS job_id
          FROM json_each(:packs) AS pack, json_each(pack.value, '$.jobs') AS job) AS made
    WHERE jobs.id = made.job_id AND jobs.state = 'pending'
"""
# The counters, for which every worker of the batch waits, are last.
_POSTGRESQL: Final = """
    WITH given AS MATERIALIZED (
        SELECT id, pack_key, num_jobs, jobs FROM json_to_recordset(:packs)
            AS given (id text, pack_key text, num_jobs int, jobs bigint[])
    ), made AS (
        INSERT INTO packs (id, batch_id, pair, pack_key, state, num_jobs, released_at, start_before)
        SELECT given.id, batches.id, batches.pair, pack_key, 'queued', num_jobs,
               coalesce(:now, statement_timestamp()), :start_before
        FROM given, batches WHERE batches.id = :batch_id
        RETURNING id
    ), queued AS (
        UPDATE jobs SET state = 'queued', pack_id = made.pack_id
        FROM (SELECT id AS pack_id, unnest(jobs) AS job_id FROM given) AS made
        WHERE jobs.id = made.job_id AND jobs.state = 'pending'
        RETURNING jobs.id
    )
    UPDATE batches SET num_pending = num_pending - :num_jobs, num_queued = num_queued + :num_jobs
    FROM (SELECT count(*) FROM made) AS packs_before, (SELECT count(*) FROM queued) AS jobs_before
    WHERE id = :batch_id
"""
_QUEUE: Final = {
    "sqlite": (timed(_MADE_SQLITE, "now", "start_before"), text(_QUEUED_SQLITE), text(_COUNT)),
    "postgresql": (timed(_POSTGRESQL, "now", "start_before"),),
}
