"""``python -m tests.integration.gpu_host``: what Nightshift makes of this machine's GPUs, asked again and again.

A process of its own, for a library is found by the ``LD_LIBRARY_PATH`` that a process begins with. Each line that it
reads is a question, and the answer is a line of JSON.
"""

import json
import logging
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from farm.gpus import read_gpus
from producer.upkeep.machine_checks import gpus
from schemas.errors import NightshiftError
from schemas.settings import Settings
from worker.device_process.gpu_watch import GpuWatch
from worker.host.devices import Device
from worker.host.host_metrics import GpuCollector
from worker.host.seat import Seat

WATCHED = ("0", "1", "MIG-1g-1")


def doctor() -> tuple[bool, str]:
    try:
        return True, gpus(Settings(home=Path("/nowhere")))
    except NightshiftError as error:
        return False, str(error)


def driver() -> Any:
    try:
        return asdict(read_gpus())
    except NightshiftError as error:
        return str(error)


def watch(watches: dict[str, GpuWatch], heard: list[str]) -> Any:
    """name → (whether it will look again, what it tells); and what was logged."""
    heard.clear()
    looked = {name: (one.look(), one.last()) for name, one in watches.items()}
    return {"told": looked, "logged": list(heard)}


def metrics() -> dict[str, dict[str, float]]:
    """metric → device → value"""
    seats = [Seat(Device("cuda", "MIG-1g-1"), "tiny")]
    families = GpuCollector(seats, read_gpus).collect()
    return {
        family.name.removeprefix("nightshift_gpu_"): {
            sample.labels.get("device", ""): sample.value for sample in family.samples
        }
        for family in families
    }


def main() -> None:
    heard: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("nightshift").addHandler(handler)
    watches = {name: GpuWatch(name) for name in WATCHED}
    answers: dict[str, Callable[[], Any]] = {
        "doctor": doctor, "driver": driver, "watch": partial(watch, watches, heard), "metrics": metrics,
    }  # fmt: skip
    for line in sys.stdin:
        print(json.dumps(answers[line.strip()]()), flush=True)


if __name__ == "__main__":
    main()
