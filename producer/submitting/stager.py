"""Chunks of jobs on their way into the ledger: while a server takes one in, the next is read."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from sqlalchemy.exc import IntegrityError

from farm import ledger
from farm.database import Database
from schemas.errors import InputError, NotFoundError
from schemas.records import StagedJob


class Stager:
    """Stages a batch's chunks one after another. A context manager: at its end all of them are in the ledger.

    Where its body raises, what is under way is waited for, and nothing is said of it: the batch is discarded then.
    SQLite works in this process, so there would be nothing to do beside it.
    """

    def __init__(self, database: Database, batch_id: int) -> None:
        self._database = database
        self._batch_id = batch_id
        self._thread = None if database.engine.dialect.name == "sqlite" else ThreadPoolExecutor(1, "staging")
        self._under_way: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._wait()
        finally:
            if self._thread is not None:
                self._thread.shutdown()

    def stage(self, jobs: Sequence[StagedJob]) -> None:
        """Raises what the chunk before this one raised, or this one.

        Raises:
            InputError: the batch is gone: somebody has canceled it.
        """
        if self._thread is None:
            self._insert(jobs)
            return
        self._wait()
        self._under_way = self._thread.submit(self._insert, jobs)

    def _wait(self) -> None:
        if self._under_way is not None:
            self._under_way.result()

    def _insert(self, jobs: Sequence[StagedJob]) -> None:
        try:
            ledger.stage_jobs(self._database, self._batch_id, jobs)
        except (IntegrityError, NotFoundError) as error:
            raise InputError(f"batch {self._batch_id} was canceled while its rows were read") from error
