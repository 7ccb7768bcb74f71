"""What a thread of another process had of the processor, and how long it stood in line for it, as Linux counts it.

Source: ``/proc/PID/task/TID/schedstat``: nanoseconds on a core, and nanoseconds ready to run and without one.
"""

import time
from pathlib import Path
from threading import Event, Thread
from typing import NamedTuple

import psutil

_LOOK_SECONDS = 0.1


class Moment(NamedTuple):
    """``at``: seconds since the epoch."""

    at: float
    busy_seconds: float
    queued_seconds: float


def moment(process_id: int, thread_id: int) -> Moment:
    busy, queued, _ = Path(f"/proc/{process_id}/task/{thread_id}/schedstat").read_text().split()
    return Moment(time.time(), int(busy) / 1e9, int(queued) / 1e9)


class BusiestThread:
    """Follows a process's worker: that of its descendants whose command line has ``module``, and of its threads the one
    that had most of the processor. In a worker that is the device thread."""

    def __init__(self, process_id: int, module: str) -> None:
        self._process = psutil.Process(process_id)
        self._module = module
        self._seen: dict[tuple[int, int], list[Moment]] = {}
        self._ended = Event()
        self._thread = Thread(target=self._follow, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def between(self, began: float, ended: float) -> Moment:
        """What it had from one instant to another: the differences. Seconds since the epoch."""
        moments = max(self._seen.values(), key=lambda moments: moments[-1].busy_seconds)
        first, last = (min(moments, key=lambda one: abs(one.at - instant)) for instant in (began, ended))
        return Moment(*(after - before for before, after in zip(first, last, strict=True)))

    def _follow(self) -> None:
        while not self._ended.wait(_LOOK_SECONDS):
            try:
                self._look()
            except (psutil.Error, OSError):
                continue  # it is not there yet, or has ended

    def _look(self) -> None:
        for child in self._process.children(recursive=True):
            if self._module in child.cmdline():
                for thread in child.threads():
                    now = moment(child.pid, thread.id)  # raises for a thread that has just ended
                    self._seen.setdefault((child.pid, thread.id), []).append(now)
