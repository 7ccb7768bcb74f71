"""Which pack a message stands for, and its claim: for ``farm/ledger.py`` alone, and its transaction.

A claim writes the pack and its batch's counters, and none of the jobs. On PostgreSQL it is one statement.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import Row, TextClause, select

from farm.database import Transaction
from farm.moves import check_move, count
from schemas.column_types import timed
from schemas.states import JobState
from schemas.tables import Job, Pack


def claim(tx: Transaction, pack_id: str, worker_id: str, lease_seconds: float, pack_key: str, odd_seconds: float
          ) -> Sequence[Row[Any]]:  # fmt: skip
    """queued → running: the pack that suits the message, with its jobs. Returns what a worker is told: a row for each
    job, in order; none where there is no such pack.

    It is one of the same batch, so that the shares of batches stay what they are, and if possible of the key that the
    worker has rendered last, so that its device seldom changes shape: a pack's key is the shape of its jobs'.

    A message stands for one queued pack of its batch and not for this very one: where it was claimed already in the
    place of another, the oldest is claimed for it, as the other has lost its message. The other had been released by
    then: where all that had been are gone, a message stands for nothing, since packs that went back have others now,
    with messages of their own. A pack that has waited for ``odd_seconds`` goes before everything. One whose row is
    locked is passed over; but rather than none the very one is waited for: it may only be noted as published.
    """
    check_move(JobState.QUEUED, JobState.RUNNING)
    now = tx.given_now
    claimed = tx.execute(
        _CLAIMS[tx.dialect],
        {
            "pack_id": pack_id,
            "pack_key": pack_key,
            "worker_id": worker_id,
            "now": now,
            "lease_seconds": lease_seconds,
            "until": now and now + timedelta(seconds=lease_seconds),
            "odd_seconds": odd_seconds,
            "odd": now and now - timedelta(seconds=odd_seconds),
        },
    )
    return claimed.all() if tx.dialect == "postgresql" else _counted(tx, claimed.one_or_none())


def _counted(tx: Transaction, claimed: Row[Any] | None) -> Sequence[Row[Any]]:
    """The second half, where a statement cannot do it all."""
    if claimed is None:
        return []
    count(tx, claimed.batch_id, {JobState.QUEUED: -claimed.num_jobs, JobState.RUNNING: claimed.num_jobs})
    jobs = select(Pack.id.label("pack_id"), Pack.batch_id, Pack.pair, Pack.pack_key, *_TOLD)
    held = (Pack.id == claimed.id, Job.pack_id == Pack.id, Job.state == JobState.QUEUED)
    return tx.execute(jobs.where(*held).order_by(Job.id)).all()


#: what a worker is told of its job
_TOLD: Final = (Job.id, Job.spec, Job.meta, Job.attempts, Job.isolated)


#: words in braces are those of ``_words``
_CLAIM: Final = """
    UPDATE packs SET state = 'running', worker_id = :worker_id, claimed_at = {now}, lease_expires_at = {until}
    WHERE id = {suiting} AND state = 'queued' AND (start_before IS NULL OR start_before > {now})
        AND EXISTS (SELECT 1 FROM batches WHERE batches.id = packs.batch_id AND batches.state = 'open')
    RETURNING id, batch_id, pair, pack_key, num_jobs
"""
_AT_ONCE: Final = """
    WITH claimed AS ({claim}), counted AS (
        UPDATE batches SET num_queued = num_queued - num_jobs, num_running = num_running + num_jobs
        FROM claimed WHERE batches.id = claimed.batch_id
    )
    SELECT claimed.id AS pack_id, claimed.batch_id, claimed.pair, claimed.pack_key, jobs.id, spec, meta, attempts,
           isolated
    FROM claimed JOIN jobs ON jobs.pack_id = claimed.id AND jobs.state = 'queued' ORDER BY jobs.id
"""
_SUITING: Final = """(
    SELECT coalesce(
        (SELECT other.id FROM packs AS other WHERE {ready} AND other.pack_key = :pack_key AND NOT EXISTS
            (SELECT 1 FROM packs AS other WHERE {ready} AND other.released_at <= {odd}) {oldest}),
        (SELECT other.id FROM packs AS other WHERE {ready} {oldest}),
        hinted.id)
    FROM packs AS hinted
    WHERE hinted.id = :pack_id AND (hinted.state = 'queued' OR EXISTS
        (SELECT 1 FROM packs AS other WHERE {beside}
            AND other.released_at <= coalesce(hinted.claimed_at, hinted.released_at))))"""


def _words(now: str, until: str, odd: str, skip_locked: str) -> dict[str, str]:
    beside = "other.batch_id = hinted.batch_id AND other.pair = hinted.pair AND other.state = 'queued'"
    ready = f"{beside} AND (other.start_before IS NULL OR other.start_before > {now})"
    oldest = f"ORDER BY other.released_at, other.id != :pack_id LIMIT 1 {skip_locked}"
    return {"now": now, "until": until, "odd": odd, "beside": beside, "ready": ready, "oldest": oldest}


def _claim(words: dict[str, str], whole: str) -> TextClause:
    claim = _CLAIM.format(**words, suiting=_SUITING.format(**words))
    return timed(whole.format(claim=claim), "now", "until", "odd")


_CLAIMS: Final = {
    "sqlite": _claim(_words(":now", ":until", ":odd", ""), "{claim}"),
    "postgresql": _claim(
        _words(
            "coalesce(:now, statement_timestamp())",
            "coalesce(:until, statement_timestamp() + make_interval(secs => :lease_seconds))",
            "coalesce(:odd, statement_timestamp() - make_interval(secs => :odd_seconds))",
            "FOR UPDATE OF other SKIP LOCKED",
        ),
        _AT_ONCE,
    ),
}
