"""Lets a supervisor's workers come from the fork server, and lets it wait a second for each, not a minute."""

import importlib.util
import sys
from collections.abc import Sequence

import farm.retries
import tests.stand_in
import worker.host.supervisor
from farm.tether import tethered

_BACKOFF_SECONDS = 1.0
_FIRST_WAIT_SECONDS = 0.5


def put_stand_in() -> None:
    assert hasattr(worker.host.supervisor, "tethered")
    worker.host.supervisor.tethered = _stand_in
    place = next(module for module in _places() if hasattr(module, "_MAX_BACKOFF_SECONDS"))
    place._MAX_BACKOFF_SECONDS = _BACKOFF_SECONDS


def shorten_waits() -> None:
    """Between the tries of a job: half a second, not two, and so on."""
    assert hasattr(farm.retries, "_FIRST_WAIT_SECONDS")
    farm.retries._FIRST_WAIT_SECONDS = _FIRST_WAIT_SECONDS


def _places() -> list:
    names = [name for name in ("worker.host.supervisor", "worker.host.seat") if importlib.util.find_spec(name)]
    return [importlib.import_module(name) for name in names]


def _stand_in(command: Sequence[str]) -> list[str]:
    _, *options = command
    assert options[:3] == ["-P", "-m", "worker.device_process.process"], command
    return tethered(
        [sys.executable, "-I", "-S", tests.stand_in.__file__, "worker.device_process.process", *options[3:]]
    )
