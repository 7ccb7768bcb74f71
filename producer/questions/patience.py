"""Waiting for a batch: the ledger is asked now and then, and one that does not answer is waited for."""

import logging
from collections.abc import Callable, Iterator
from typing import Concatenate, ParamSpec, TypeVar

from farm.database import Database
from producer.questions.queries import BatchSummary, batch_summary
from schemas.errors import UnavailableError

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger("nightshift.client")


class Patient:
    """Asks the ledger again and again while it does not answer, and says so once, in the log."""

    def __init__(self, database: Database, pause: Callable[[], None]) -> None:
        self.pause = pause
        self._database = database
        self._answers = True

    def ask(self, question: Callable[Concatenate[Database, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Raises what no waiting mends: ledger of another version, no such batch, whatever ``pause`` raises."""
        while True:
            try:
                answer = question(self._database, *args, **kwargs)
            except UnavailableError as error:
                if not error.retryable:
                    raise
                if self._answers:
                    log.warning("%s; trying again", error)
                self._answers = False
                self.pause()
            else:
                self._answers = True
                return answer


def until_ended(ledger: Patient, batch_id: int) -> Iterator[BatchSummary]:
    """The batch now, and after each pause, until it has ended."""
    while True:
        batch = ledger.ask(batch_summary, batch_id)
        yield batch
        if batch.ended:
            return
        ledger.pause()
