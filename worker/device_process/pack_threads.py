"""The pool in which Celery runs packs: its threads pool, which wakes the consumer when a pack has ended.

Celery's consumer takes no message while every slot is taken (``worker_disable_prefetch``), and sleeps until something
happens in Redis or a timer is due: one second, or ten. The end of a task in a thread is neither. Without the waking two
slots of packs of 0.3 s take 2 packs a second instead of 6, and a device waits for its next pack.
"""

import os
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final

from celery.concurrency import thread

#: for ``celery worker --pool``
NAME: Final = f"{__name__}:PackThreads"


class PackThreads(thread.TaskPool):  # type: ignore[misc]
    """Celery's threads, and a pipe into its event loop."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._wakes, self._wake = os.pipe()
        for end in (self._wakes, self._wake):
            os.set_blocking(end, False)

    def register_with_event_loop(self, hub: Any) -> None:
        """Called again after each reconnect, which empties the loop."""
        hub.add_reader(self._wakes, self._drain)

    def on_apply(self, *args: Any, **kwargs: Any) -> Any:
        result = super().on_apply(*args, **kwargs)
        result.f.add_done_callback(self._wake_up)  # after Celery has given the slot back
        return result

    def _wake_up(self, _: "Future[Any]") -> None:
        with suppress(BlockingIOError):  # so full that it will wake up anyhow
            os.write(self._wake, b"\0")

    def _drain(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._wakes, 4096)
