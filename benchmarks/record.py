"""One line of JSON for each run of a benchmark: the machine, the versions, the commit, the figures."""

import json
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

_LIBRARIES = ("torch", "diffusers", "transformers", "celery", "sqlalchemy", "pillow")


def append(benchmark: str, path: str, figures: dict[str, Any]) -> None:
    """Appends the line, and says where."""
    record = {
        "benchmark": benchmark,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in _LIBRARIES},
        "commit": _commit(),
        **figures,
    }
    with open(path, "a", encoding="utf-8") as stream:
        stream.write(json.dumps(record) + "\n")
    print(f"appended to {path}")


def _commit() -> str:
    """Empty outside of a clone."""
    command = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return done.stdout.strip()
