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
_SQLITE: Final = """
    INSERT INTO jobs (batch_id, number, spec_digest, repeat, spec, pack_key, meta, state, attempts, isolated)
    VALUES {rows}
    ON CONFLICT DO NOTHING
    """


def insert_staged(tx: Transaction, batch_id: int, state: JobState, jobs: Sequence[StagedJob]) -> int:
    """Returns how many are new: those of whose spec digest and repeat the batch has no job."""
    insert = _insert_sqlite if tx.dialect == "sqlite" else _insert_postgresql
    return insert(tx, batch_id, state, jobs)


def _insert_sqlite(tx: Transaction, batch_id: int, state: JobState, jobs: Sequence[StagedJob]) -> int:
    rows = [astuple(job) for job in jobs]
    num_whole = len(rows) - len(rows) % _ROWS_AT_ONCE
    num_new = 0
    for num_rows, part in ((_ROWS_AT_ONCE, rows[:num_whole]), (1, rows[num_whole:])):
        lots = [part[n : n + num_rows] for n in range(0, len(part), num_rows)]
        if lots:
            parameters = [(batch_id, state, *chain.from_iterable(lot)) for lot in lots]
            num_new += tx.connection.exec_driver_sql(_insertion(num_rows), parameters).rowcount
    return num_new


def _insertion(num_rows: int) -> str:
    """Of so many rows. Batch and state are bound once for all of them."""
    num_own = len(StagedJob.__struct_fields__)
    places = (range(3 + num_own * n, 3 + num_own * (n + 1)) for n in range(num_rows))
    rows = ", ".join(f"(?1, {', '.join(f'?{place}' for place in row)}, ?2, 0, 0)" for row in places)
    return _SQLITE.format(rows=rows)


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
