"""How many messages wait in the pairs' queues, asked beside a scrape: a Redis that hangs holds up nobody who looks."""

from collections.abc import Collection
from contextlib import closing
from threading import Thread
from typing import Final

from farm.broker import open_broker
from schemas.errors import NightshiftError
from schemas.pair import queue_name
from schemas.settings import Settings

#: Prometheus gives up a scrape after ten seconds, and Redis may be given up after as many
_SECONDS: Final = 2.0


class QueueLengths:
    """For one thread. Redis is asked whatever the pairs: where there is none, for the queue of the settings' pair."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._asking: Thread | None = None

    def of(self, pairs: Collection[str]) -> dict[str, int] | None:
        """pair → its messages; None where Redis refuses, does not answer in two seconds, or still owes an answer."""
        if self._asking is not None and self._asking.is_alive():
            return None
        answers: list[dict[str, int]] = []
        wanted = sorted(pairs) or [self._settings.pair]
        self._asking = Thread(target=self._ask, args=(wanted, answers), name="queue-lengths", daemon=True)
        self._asking.start()
        self._asking.join(_SECONDS)
        return {pair: answers[0][pair] for pair in pairs} if answers else None

    def _ask(self, pairs: list[str], answers: list[dict[str, int]]) -> None:
        """By a connection of its own, which nobody closes while its answer is waited for."""
        try:
            with closing(open_broker(self._settings)) as broker:
                answers.append({pair: broker.queue_length(queue_name(pair)) for pair in pairs})
        except NightshiftError:
            return
