"""Makes things happen to a farm that has enough to do, and waits until they have happened."""

import os
import random
import time
from collections.abc import Callable

from tests.chaos.farm import Farm, wait_for

Injection = Callable[[Farm, random.Random, bool], None]
FIRE_SECONDS = 40.0


def fire(farm: Farm, role: str, point: str, action: str) -> int:
    """Arms a point and waits until somebody came by. Returns the process that did."""
    # A submit releases what the queue holds; the dispatcher has something to do where there is more.
    num_wanted = (8 + 2 * farm.rules.num_workers * (role == "dispatcher")) * farm.rules.pack_size // 2
    num_before = len(farm.fired(role, point))
    deadline = time.monotonic() + FIRE_SECONDS
    armed = farm.arm(role, point, action)  # type: ignore[arg-type]
    while len(fired := farm.fired(role, point)) == num_before:
        if time.monotonic() > deadline:
            armed.unlink(missing_ok=True)
            raise TimeoutError(f"{action} at {point} did not happen within {FIRE_SECONDS:g} s")
        farm.feed(num_wanted)
        time.sleep(0.05)
    return int(fired[-1]["pid"])


def visit(farm: Farm, visitors: dict[str, dict[str, str]], seconds: float) -> None:
    """More workers, which are somehow strange, for so many seconds from when they are ready."""
    num_before = num_ready(farm)
    seats = [farm.add_worker(name, **variables) for name, variables in visitors.items()]
    wait_for(lambda: num_ready(farm) >= num_before + len(seats), FIRE_SECONDS, f"workers {', '.join(visitors)}")
    farm.feed(4 * farm.rules.pack_size)
    time.sleep(seconds)
    for seat in seats:
        farm.leave_seat(seat)


def num_ready(farm: Farm) -> int:
    return int(farm.ask("SELECT count(*) FROM workers WHERE state = 'ready'")[0][0])


def runs(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True
