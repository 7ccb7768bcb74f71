"""Submitting: rows of a manifest become jobs in the ledger; only then is anybody told that they were accepted.

Files: with ``skip_invalid``, the rows left out are listed in ``$NIGHTSHIFT_HOME/invalid/batch-ID.txt``.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from farm import ledger
from farm.database import Database
from producer.manifest import BadRow, Row
from schemas.errors import ManifestError, StorageError
from schemas.records import StagedJob

_CHUNK: Final = 1_000
_SHOWN_BAD_ROWS: Final = 20


@dataclass(frozen=True)
class BatchRequest:
    """What a batch is called and how it is treated. ``invalid_folder``: where to list bad rows; None refuses them."""

    name: str
    pair: str
    priority: int = 5
    invalid_folder: Path | None = None


@dataclass(frozen=True)
class Submission:
    """An accepted batch. ``invalid_file`` lists the rows that were left out, where some were."""

    batch_id: int
    num_jobs: int
    num_left_out: int
    invalid_file: Path | None


def submit(database: Database, rows: Iterable[Row | BadRow], request: BatchRequest) -> Submission:
    """Stages every row, then opens the batch. A bad row refuses the whole batch, unless it may be skipped.

    Raises:
        ManifestError: bad rows, each named; or no good row at all. Nothing is enqueued.
    """
    batch_id = ledger.create_batch(database, request.name, request.pair, request.priority)
    bad = _BadRows(request.invalid_folder, batch_id)
    try:
        num_jobs = _stage(database, batch_id, bad.filter(rows), opened_at_once=bad.may_skip)
        bad.close()
        if not bad.may_skip:
            bad.refuse()
            ledger.open_batch(database, batch_id)
        if not num_jobs:
            raise ManifestError(f"no row of the manifest is valid; {bad.num} are not: {bad.first[0]}")
    except BaseException:
        bad.close()
        ledger.discard_batch(database, batch_id)
        raise
    return Submission(batch_id, num_jobs, bad.num, bad.file)


def _stage(database: Database, batch_id: int, rows: Iterator[Row], *, opened_at_once: bool) -> int:
    num_read = num_new = 0
    while chunk := list(islice(rows, _CHUNK)):
        jobs = [StagedJob(num_read + n, row.spec, row.repeat, row.meta) for n, row in enumerate(chunk, 1)]
        num_new += ledger.stage_jobs(database, batch_id, jobs)
        if opened_at_once and num_read == 0:
            ledger.open_batch(database, batch_id)
        num_read += len(chunk)
    return num_new


class _BadRows:
    """Takes bad rows out of a stream: counts them, keeps the first few, lists them in a file if they may be skipped."""

    def __init__(self, folder: Path | None, batch_id: int) -> None:
        self.may_skip = folder is not None
        self.num = 0
        self.first: list[BadRow] = []
        self.file: Path | None = None
        self._path = folder / f"batch-{batch_id}.txt" if folder is not None else None
        self._lines: list[str] = []

    def filter(self, rows: Iterable[Row | BadRow]) -> Iterator[Row]:
        for row in rows:
            if isinstance(row, BadRow):
                self._take(row)
            else:
                yield row

    def _take(self, row: BadRow) -> None:
        self.num += 1
        if len(self.first) < _SHOWN_BAD_ROWS:
            self.first.append(row)
        self._lines.append(f"{row}\n")
        if len(self._lines) >= _CHUNK:
            self.close()

    def close(self) -> None:
        """Writes what is still to be listed."""
        if self._path is None or not self._lines:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with open(self._path, "a", encoding="utf-8") as stream:
                stream.writelines(self._lines)
        except OSError as error:
            raise StorageError(f"cannot list the invalid rows in {self._path}: {error.strerror}") from error
        self._lines.clear()
        self.file = self._path

    def refuse(self) -> None:
        """Raises ManifestError where any row was bad."""
        if not self.num:
            return
        lines = [str(row) for row in self.first]
        if self.num > len(lines):
            lines.append(f"... and {self.num - len(lines)} more")
        rows = "1 row is" if self.num == 1 else f"{self.num} rows are"
        raise ManifestError(
            f"{rows} invalid; nothing was enqueued (--skip-invalid leaves them out)\n" + "\n".join(lines)
        )
