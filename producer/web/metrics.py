"""What the web process notes of its requests, and where it goes: to nobody, or to Prometheus."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple


class Answered(NamedTuple):
    """``route``: its template, such as ``/batches/{batch_id}``; ``seconds``: until the answer began."""

    route: str
    method: str
    status: int
    seconds: float


class WebMetrics:
    """Where nobody asks, nothing is noted (``producer.web.prometheus`` for who does). Threads share it."""

    def answered(self, answered: Answered) -> None:
        """A request."""

    def refused(self, reason: str) -> None:
        """With this code of a problem."""

    def submitted(self, num_jobs: int) -> None:
        """So many more are in the ledger."""

    @contextmanager
    def event_stream(self) -> Iterator[None]:
        """While inside, somebody listens."""
        yield


TOLD_TO_NOBODY: Final = WebMetrics()
