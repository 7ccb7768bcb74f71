"""What a device does to a worker: too little memory, a sticky error, NaN, a step that hangs."""

import random
import time

from tests.chaos.farm import Farm, wait_for
from tests.chaos.firing import FIRE_SECONDS, Injection, fire, runs


def device(point: str, action: str) -> Injection:
    def inject(farm: Farm, chance: random.Random, short: bool) -> None:
        fire(farm, "worker", point, action)

    return inject


def little_memory(farm: Farm, chance: random.Random, short: bool) -> None:
    """On a worker whose passes are of four images, and whose device holds one."""
    points = farm.points("visitor")
    on = farm.arm("visitor", "room_for_one", "")
    variables = {"CHAOS_POINTS": str(points), "NIGHTSHIFT_FORWARD_PASS_SIZE": "4"}
    seat = farm.add_worker("little-memory", **variables)
    struck = points / "fired" / "room_for_one"
    deadline = time.monotonic() + FIRE_SECONDS
    while not struck.exists() and time.monotonic() < deadline:
        farm.feed(12 * farm.rules.pack_size)
        time.sleep(0.1)
    assert struck.exists(), "no pass of several images came to the worker with little memory"
    time.sleep(2 if short else 10)
    farm.leave_seat(seat)
    on.unlink()
    struck.unlink()


def hung(farm: Farm, chance: random.Random, short: bool) -> None:
    """On a worker whose steps may take five seconds."""
    variables = {"CHAOS_POINTS": str(farm.points("visitor")), "NIGHTSHIFT_RENDER_BUDGET_SECONDS": "5"}
    seat = farm.add_worker("hanging", **variables)
    process_id = fire(farm, "visitor", "device", "HANG")
    wait_for(lambda: not runs(process_id), 5 + farm.rules.recovery_seconds, "the end of a worker that hangs")
    farm.leave_seat(seat)
