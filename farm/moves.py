"""How jobs, packs and counters are moved: for ``farm/ledger.py`` alone, and its transaction."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Row, Update, bindparam, exists, text, update

from farm.database import Transaction
from farm.packing import PackOfJobs
from schemas.column_types import Utc
from schemas.states import JobState, PackState, may_move
from schemas.tables import Batch, Job, Pack

#: what a worker is told of its job
_CLAIMED: Final = (Job.id, Job.spec, Job.meta, Job.attempts, Job.isolated)


def move(tx: Transaction, batch_id: int, old: JobState, new: JobState, *where: ColumnElement[bool],
         **values: Any) -> int:  # fmt: skip
    """Moves the batch's jobs that are in ``old`` (and ``where``) to ``new``, and its counters with them."""
    moved = tx.execute(_moving(batch_id, old, new, *where, **values)).rowcount
    count(tx, batch_id, {old: -moved, new: moved})
    return moved


def claim_jobs(tx: Transaction, pack_id: str, batch_id: int) -> Sequence[Row[Any]]:
    """queued → running, without the counters: the pack's jobs. Returns what a worker is told of them."""
    claimed = _moving(batch_id, JobState.QUEUED, JobState.RUNNING, Job.pack_id == pack_id)
    return sorted(tx.execute(claimed.returning(*_CLAIMED)).all(), key=lambda job: job.id)


def end_jobs(tx: Transaction, batch_id: int, *where: ColumnElement[bool], **values: Any) -> frozenset[int]:
    """running → done, without the counters. Returns which were moved."""
    return frozenset(
        tx.execute(_moving(batch_id, JobState.RUNNING, JobState.DONE, *where, **values).returning(Job.id)).scalars()
    )


def _moving(batch_id: int, old: JobState, new: JobState, *where: ColumnElement[bool], **values: Any) -> Update:
    _check_move(old, new)
    if new == JobState.PENDING:
        values["pack_id"] = None
    return update(Job).where(Job.batch_id == batch_id, Job.state == old, *where).values(state=new, **values)


def _check_move(old: JobState, new: JobState) -> None:
    if not may_move(old, new):
        raise AssertionError(f"no job goes from {old} to {new}")


def count(tx: Transaction, batch_id: int, changes: Mapping[JobState, int]) -> None:
    """The batch's counters."""
    counters = {f"num_{state}": getattr(Batch, f"num_{state}") + change for state, change in changes.items() if change}
    if counters:
        tx.execute(update(Batch).where(Batch.id == batch_id).values(counters))


def end_packs(tx: Transaction, state: PackState, *where: ColumnElement[bool]) -> int:
    """Returns how many."""
    return tx.execute(update(Pack).where(*where).values(state=state, ended_at=tx.from_now())).rowcount


def end_if_empty(tx: Transaction, pack_id: str) -> None:
    """The pack is finished where no job of it is left in ``running``."""
    left = exists().where(Job.pack_id == pack_id, Job.state == JobState.RUNNING)
    end_packs(tx, PackState.FINISHED, Pack.id == pack_id, ~left)


def queue_jobs(tx: Transaction, pack: Mapping[str, Any], jobs: Mapping[str, PackOfJobs]) -> int:
    """pending → queued, without the counters: makes the packs (id → jobs), all at once. ``pack``: what they share, its
    columns. Returns how many jobs."""
    _check_move(JobState.PENDING, JobState.QUEUED)
    rows = [{"id": key, "pack_key": one.pack_key, "num": len(one.ids), "jobs": one.ids} for key, one in jobs.items()]
    shared = {**pack, "packs": msgspec.json.encode(rows).decode(), "now": tx.given_now}
    made, queued = _QUEUE[tx.dialect]
    if made is not None:
        tx.execute(made, shared)
    return tx.execute(queued, shared).rowcount


_TIMES: Final = (bindparam("now", type_=Utc), bindparam("start_before", type_=Utc))
_MADE_SQLITE: Final = text(
    """
    INSERT INTO packs (id, batch_id, pair, pack_key, state, num_jobs, released_at, start_before)
    SELECT value ->> 'id', :batch_id, :pair, value ->> 'pack_key', 'queued', value ->> 'num', :now, :start_before
    FROM json_each(:packs)
    """
).bindparams(*_TIMES)
_QUEUED_SQLITE: Final = text(
    """
    UPDATE jobs SET state = 'queued', pack_id = made.pack_id
    FROM (SELECT pack.value ->> 'id' AS pack_id, job.value AS job_id
          FROM json_each(:packs) AS pack, json_each(pack.value, '$.jobs') AS job) AS made
    WHERE jobs.id = made.job_id AND jobs.batch_id = :batch_id AND jobs.state = 'pending'
    """
)
_QUEUED_POSTGRESQL: Final = text(
    """
    WITH given AS MATERIALIZED (
        SELECT id, pack_key, num, jobs FROM json_to_recordset(:packs)
            AS given (id text, pack_key text, num int, jobs bigint[])
    ), made AS (
        INSERT INTO packs (id, batch_id, pair, pack_key, state, num_jobs, released_at, start_before)
        SELECT id, :batch_id, :pair, pack_key, 'queued', num, coalesce(:now, statement_timestamp()), :start_before
        FROM given
    )
    UPDATE jobs SET state = 'queued', pack_id = made.pack_id
    FROM (SELECT id AS pack_id, unnest(jobs) AS job_id FROM given) AS made
    WHERE jobs.id = made.job_id AND jobs.batch_id = :batch_id AND jobs.state = 'pending'
    """
).bindparams(*_TIMES)
_QUEUE: Final = {"sqlite": (_MADE_SQLITE, _QUEUED_SQLITE), "postgresql": (None, _QUEUED_POSTGRESQL)}
