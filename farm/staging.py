"""Rows of ``jobs``, many at a time, in each database's fast way: for ``farm/ledger.py`` alone, and its transaction."""

from collections.abc import Sequence

import msgspec

from farm.database import Transaction
from schemas.records import StagedJob
from schemas.states import JobState


def insert_staged(tx: Transaction, batch_id: int, state: JobState, jobs: Sequence[StagedJob]) -> int:
    """Returns how many are new: those of whose spec digest and repeat the batch has no job."""
    insert = _insert_sqlite if tx.dialect == "sqlite" else _insert_postgresql
    return insert(tx, batch_id, state, jobs)


def _insert_sqlite(tx: Transaction, batch_id: int, state: JobState, jobs: Sequence[StagedJob]) -> int:
    # 64 MB of the file stay in memory: digests come in no order, and each has its place in an index.
    tx.connection.exec_driver_sql("PRAGMA cache_size = -65536").close()
    # What all rows share stands in the SQL, so that the jobs are rows as they are.
    return tx.connection.exec_driver_sql(
        f"""
        INSERT INTO jobs (batch_id, number, spec_digest, repeat, spec, pack_key, meta, state, attempts, isolated)
        VALUES ({batch_id:d}, ?, ?, ?, ?, ?, ?, '{state}', 0, 0)
        ON CONFLICT DO NOTHING
        """,
        jobs,
    ).rowcount


def _insert_postgresql(tx: Transaction, batch_id: int, state: JobState, jobs: Sequence[StagedJob]) -> int:
    """All rows in one JSON text: the driver's work for a parameter is done once."""
    rows = msgspec.json.encode([job._asdict() for job in jobs]).decode()
    return tx.connection.exec_driver_sql(
        """
        INSERT INTO jobs (batch_id, number, spec_digest, repeat, spec, pack_key, meta, state, attempts, isolated)
        SELECT %s, number, spec_digest, repeat, spec, pack_key, meta::json, %s, 0, false
        FROM json_to_recordset(%s)
            AS staged (number bigint, spec_digest text, repeat int, spec text, pack_key text, meta text)
        ON CONFLICT DO NOTHING
        """,
        (batch_id, state, rows),
    ).rowcount
