"""How much memory this process held at the most."""

import resource
import sys
from pathlib import Path


def peak_bytes() -> int:
    """Since the program began. Linux' ``ru_maxrss`` also counts what the process that started it held, so a child of a
    test run that has loaded a pair would never be seen to grow."""
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
