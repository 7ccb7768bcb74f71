"""Sees that the device thread gets on. It stands in a kernel that never ends: no other thread can free it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from worker.device_process.budget import PassShape, StepBudget
from worker.device_process.periodic_thread import PeriodicThread

_LOOK_SECONDS: Final = 1.0


@dataclass
class _Watched:
    """A forward pass under way. Written by the device thread, read by the watchdog's."""

    shape: PassShape
    alive_at: float = field(default_factory=time.monotonic)
    slowest_seconds: float = 0.0

    def sign_of_life(self) -> None:
        now = time.monotonic()
        self.slowest_seconds = max(self.slowest_seconds, now - self.alive_at)
        self.alive_at = now


class Watchdog(PeriodicThread):
    """``hung`` is called on a thread of its own, once, with a sentence. Waiting for ledger or store is not watched."""

    def __init__(self, budget: StepBudget, hung: Callable[[str], None]) -> None:
        super().__init__("watchdog", _LOOK_SECONDS)
        self._budget = budget
        self._hung = hung
        self._watched: _Watched | None = None

    @contextmanager
    def watching(self, shape: PassShape) -> Iterator[Callable[[], None]]:
        """While inside, the returned sign of life must come in time. What an ended pass took is remembered."""
        watched = self._watched = _Watched(shape)
        try:
            yield watched.sign_of_life
        finally:
            self._watched = None
        watched.sign_of_life()
        self._budget.took(shape, watched.slowest_seconds)

    def look(self) -> bool:
        watched = self._watched
        if watched is None:
            return True
        budget_seconds = self._budget.seconds(watched.shape)
        if time.monotonic() - watched.alive_at <= budget_seconds:
            return True
        self._hung(_sentence(watched.shape, budget_seconds))
        return False


def _sentence(shape: PassShape, budget_seconds: float) -> str:
    images = f"{shape.num_images} images of {shape.width} x {shape.height}"
    return f"the device hangs: no step of a forward pass of {images} ended in {budget_seconds:g} s"
