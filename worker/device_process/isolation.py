"""Lets a job that is suspected of killing its worker have the process to itself, so that a death tells who it was."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition, Event
from typing import Final

from worker.device_process.stopping import DrainedError

_LOOK_SECONDS: Final = 0.2


class Isolation:
    """Packs are in work together, or a suspect alone. A suspect that waits goes before packs that are not begun.

    Threads share it. ``stopping``: nobody waits any longer.
    """

    def __init__(self, stopping: Event) -> None:
        self._stopping = stopping
        self._changed = Condition()
        self._num_together = 0
        self._num_suspects = 0
        self._is_alone = False

    @contextmanager
    def together(self) -> Iterator[None]:
        """Raises DrainedError where the worker stops before its turn has come."""
        with self._changed:
            self._wait_until(lambda: not self._num_suspects)
            self._num_together += 1
        try:
            yield
        finally:
            with self._changed:
                self._num_together -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Inside of ``together``, which it steps out of meanwhile. Raises DrainedError like it."""
        with self._changed:
            self._num_together -= 1
            self._num_suspects += 1
            self._changed.notify_all()
            try:
                self._wait_until(lambda: not self._num_together and not self._is_alone)
                self._is_alone = True
            except DrainedError:
                self._step_back()
                raise
        try:
            yield
        finally:
            with self._changed:
                self._is_alone = False
                self._step_back()

    def _step_back(self) -> None:
        self._num_suspects -= 1
        self._num_together += 1
        self._changed.notify_all()

    def _wait_until(self, has_come: Callable[[], bool]) -> None:
        while not has_come():
            if self._stopping.is_set():
                raise DrainedError("the worker is stopping")
            self._changed.wait(_LOOK_SECONDS)
