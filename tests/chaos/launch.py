"""In a forked process: puts the crash points of its role round the product's functions, and runs the real program.

Environment: ``CHAOS_POINTS`` (see ``crash_points``), ``CHAOS_STEP_SECONDS`` (how long an evaluation takes at least, so
that there is time to interfere), ``CHAOS_CLOCK_SECONDS`` (how wrong this process's clock is),
``CHAOS_CONTRACT_VERSION`` (of the messages that it reads), ``CHAOS_BREAK`` (see ``breaks``).
"""

import os
import sys
from typing import Any

from tests.chaos import breaks, clock
from tests.chaos.points_of_the_farm import put_farm_points
from tests.chaos.points_of_the_supervisor import put_stand_in, shorten_waits
from tests.chaos.points_of_the_worker import put_worker_points


def launch(entry: str, arguments: list[str]) -> Any:
    """Runs ``entry`` as ``python -m entry arguments`` would. Returns its exit code."""
    sys.argv = [entry, *arguments]
    breaks.apply(os.environ.get("CHAOS_BREAK", ""))
    clock.shift(float(os.environ.get("CHAOS_CLOCK_SECONDS", "0")))
    shorten_waits()
    _speak(os.environ.get("CHAOS_CONTRACT_VERSION"))
    if entry == "tests.chaos.reference":
        from tests.chaos.reference import main

        return main()
    if entry == "worker.device_process.process":
        import worker.device_process.process

        put_worker_points(float(os.environ.get("CHAOS_STEP_SECONDS", "0")))
        return worker.device_process.process.main()
    import nightshift

    put_farm_points()
    put_stand_in()
    nightshift.main()
    return 0


def _speak(version: str | None) -> None:
    if version is not None:
        import schemas.messages

        schemas.messages.CONTRACT_VERSION = int(version)
