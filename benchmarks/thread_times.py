"""What the threads of a process had of the processors, and how long they stood in line for them, as Linux counts it.

Sources: ``/proc/PID/task/TID/schedstat``: nanoseconds on a core, and nanoseconds ready to run and without one;
``/proc/stat``: what other machines on the same host took of this one's cores.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

_STOLEN_FIELD: Final = 8  # of the first line of /proc/stat


class Had(NamedTuple):
    """Of one thread, since it began."""

    busy_seconds: float
    queued_seconds: float


def threads_had(process_id: int) -> dict[int, Had]:
    """Thread id → what it had."""
    found = {}
    for task in Path(f"/proc/{process_id}/task").iterdir():
        with suppress(OSError):  # one that has just ended
            busy, queued, _ = (task / "schedstat").read_text().split()
            found[int(task.name)] = Had(int(busy) / 1e9, int(queued) / 1e9)
    return found


def stolen_seconds() -> float:
    """Of all cores together, since this machine began."""
    fields = Path("/proc/stat").read_text().partition("\n")[0].split()
    return int(fields[_STOLEN_FIELD]) / os.sysconf("SC_CLK_TCK")
