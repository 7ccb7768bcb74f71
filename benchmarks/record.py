"""One line of JSON for each run of a benchmark: the machine, the versions, the commit, the figures."""

import json
import os
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_LIBRARIES = (
    "accelerate", "celery", "datasets", "diffusers", "isal", "numpy", "opencv-python-headless", "pillow", "psycopg",
    "pyarrow", "pydantic", "redis", "sqlalchemy", "torch", "torchao", "transformers", "triton", "webdataset", "zlib-ng",
)  # fmt: skip


def append(benchmark: str, path: str | Path, figures: dict[str, Any]) -> None:
    """Appends the line, and says where, and how long it all took."""
    seconds = _age_seconds()
    record = {
        "benchmark": benchmark,
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} of {os.cpu_count()} cores",
        "versions": {"python": platform.python_version(), **_versions()},
        "commit": _commit(),
        "took_seconds": round(seconds, 1),
        **figures,
    }
    with open(path, "a", encoding="utf-8") as stream:
        stream.write(json.dumps(record) + "\n")
    print(f"appended to {path} after {seconds:.0f} s")


def _age_seconds() -> float:
    """Since this process was started (Linux: field 22 of proc_pid_stat(5), in ticks since the machine began)."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _versions() -> dict[str, str]:
    """Of what is installed: a machine with a GPU may have a set of its own, and torchao lies apart."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _commit() -> str:
    """Empty outside of a clone, and where there is no git."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()
