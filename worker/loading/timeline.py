"""How long each part of a worker's start took, for its log."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

_START_TIME_FIELD: Final = 19  # of /proc/PID/stat, counted behind the program's name


class Timeline:
    """Parts in the order in which they ended. ``began``: by the monotonic clock."""

    def __init__(self, began: float) -> None:
        self._began = began
        self._parts: list[tuple[str, float]] = []

    @classmethod
    def of_process(cls, first_part: str) -> "Timeline":
        """From the start of this process; what it has done until now is ``first_part``."""
        age_seconds = _age_seconds()
        timeline = cls(time.monotonic() - age_seconds)
        timeline._parts.append((first_part, age_seconds))
        return timeline

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Threads share it: parts may go on beside each other. One that fails is no part."""
        started = time.monotonic()
        yield
        self._parts.append((name, time.monotonic() - started))

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {seconds:.2f}" for name, seconds in self._parts)
        return f"{time.monotonic() - self._began:.2f} s after its start: {parts}"


def telling_of_first(run: Callable[[dict[str, Any]], None], tell: Callable[[float], None]) -> Callable[..., None]:
    """``run``, which first tells how many seconds it was until it was called for the first time."""
    ready, told = time.monotonic(), []

    def told_run(content: dict[str, Any]) -> None:
        if not told:
            told.append(True)
            tell(time.monotonic() - ready)
        run(content)

    return told_run


def _age_seconds() -> float:
    """Of this process. Where there is no /proc, the processor's time that it took: importing is nothing else."""
    if sys.platform != "linux":
        return time.process_time()
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    started = int(fields[_START_TIME_FIELD]) / os.sysconf("SC_CLK_TCK")
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started)
