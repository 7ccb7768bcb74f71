"""Repeating a step while the ledger or the image store does not answer."""

import logging
from collections.abc import Callable
from threading import Event
from typing import Final, TypeVar

from schemas.errors import UnavailableError
from worker.device_process.stopping import DrainedError

log = logging.getLogger("nightshift.worker")
T = TypeVar("T")

_FIRST_DELAY_SECONDS: Final = 0.5
_MAX_DELAY_SECONDS: Final = 10.0


def insist(step: Callable[[], T], gives_up: Event) -> T:
    """What the step returns, once ledger and store answer: what is rendered is kept until it can be recorded.

    Raises:
        DrainedError: they did not answer, and ``gives_up`` was set meanwhile.
    """
    delay = _FIRST_DELAY_SECONDS
    while True:
        try:
            return step()
        except UnavailableError as error:
            if gives_up.is_set():
                raise DrainedError(f"the worker is stopping, and {error}") from error
            log.warning("%s; trying again in %.1f s", error, delay)
        gives_up.wait(delay)
        delay = min(delay * 2, _MAX_DELAY_SECONDS)
