"""Rows of ``jobs``, many at a time, in each database's fast way: for ``farm/ledger.py`` alone, and its transaction."""

from collections.abc import Sequence
from itertools import chain
from typing import Final

import msgspec
from msgspec.structs import astuple

from farm.database import Transaction
from schemas.records import StagedJob
from schemas.states import JobState

#: beginning a statement takes SQLite as long as inserting a row: it opens a table and six indexes
_ROWS_AT_ONCE: Final = 50


def insert_staged(tx: Transaction, batch_id: int, state: JobState, jobs: Sequence[StagedJob]) -> int:
    """Returns how many are new: those of whose spec digest and repeat the batch has no job."""
    insert = _insert_sqlite if tx.dialect == "sqlite" else _insert_postgresql
    return insert(tx, batch_id, state, jobs)


def _insert_sqlite(tx: Transaction, batch_id: int, state: JobState, jobs: Sequence[StagedJob]) -> int:
    num_whole = len(jobs) - len(jobs) % _ROWS_AT_ONCE
    parts = ((_ROWS_AT_ONCE, jobs[:num_whole]), (1, jobs[num_whole:]))
    return sum(_insert_rows(tx, num_rows, f"({batch_id:d}, ?, ?, ?, ?, ?, ?, '{state}', 0, 0)", part)
               for num_rows, part in parts if part)  # fmt: skip


def _insert_rows(tx: Transaction, num_rows: int, row: str, jobs: Sequence[StagedJob]) -> int:
    """So many rows by each statement. What all rows share stands in ``row``, and is not bound for each."""
    statement = f"""
        INSERT INTO jobs (batch_id, number, spec_digest, repeat, spec, pack_key, meta, state, attempts, isolated)
        VALUES {", ".join([row] * num_rows)}
        ON CONFLICT DO NOTHING
        """  # noqa: S608  a number and a state's word
    values = [astuple(job) for job in jobs]
    parameters = [(*chain.from_iterable(values[n : n + num_rows]),) for n in range(0, len(values), num_rows)]
    return tx.connection.exec_driver_sql(statement, parameters).rowcount


def _insert_postgresql(tx: Transaction, batch_id: int, state: JobState, jobs: Sequence[StagedJob]) -> int:
    """All rows in one JSON text: the driver's work for a parameter is done once."""
    rows = msgspec.json.encode(jobs).decode()
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
