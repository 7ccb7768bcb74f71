"""Ends a worker process whose consumer has gone deaf; its supervisor starts a fresh one at once."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event
from typing import Final

from farm import packs
from farm.broker import Broker
from farm.database import Database
from schemas.errors import UnavailableError
from schemas.pair import queue_name
from worker.device_process.deafness import Deafness, Look
from worker.device_process.hands import Hands
from worker.device_process.periodic_thread import PeriodicThread

log = logging.getLogger("nightshift.worker")

_LOOKS: Final = 6  # in the time after which a consumer counts as deaf


@dataclass(frozen=True)
class Listening:
    """Where to look, and for how long nothing may come."""

    database: Database
    broker: Broker
    pair: str
    hands: Hands
    patience_seconds: float

    def look(self) -> Look:
        """Raises UnavailableError."""
        idle_seconds = self.hands.idle_seconds()
        num_messages = self.broker.queue_length(queue_name(self.pair)) if idle_seconds else 0
        has_old = bool(num_messages) and packs.has_waited(self.database, self.pair, self.patience_seconds)
        return Look(idle_seconds, num_messages, has_old)


class ProgressWatchdog(PeriodicThread):
    """``deaf`` is called once, with a sentence."""

    def __init__(self, listening: Listening, deaf: Callable[[str], None], stopped: Event) -> None:
        super().__init__("progress-watchdog", listening.patience_seconds / _LOOKS, stopped)
        self._listening = listening
        self._deaf = deaf
        self._deafness = Deafness(listening.patience_seconds)

    def look(self) -> bool:
        try:
            look = self._listening.look()
        except UnavailableError as error:
            log.warning("%s", error)
            self._deafness.forget()
            return True
        if not self._deafness.is_deaf(time.monotonic(), look):
            return True
        self._deaf(
            f"the consumer is deaf: {look.num_messages} packs waited in Redis for"
            f" {self._listening.patience_seconds:g} s and it took none; a fresh process takes its place"
        )
        return False
