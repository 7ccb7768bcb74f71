"""Submits that are killed round their commit and their publishing."""

import random
import time
from collections.abc import Callable

from tests.chaos.farm import Farm
from tests.chaos.firing import FIRE_SECONDS


def killed_before_the_commit(farm: Farm, chance: random.Random, short: bool) -> None:
    num_accepted = _num_accepted(farm)
    rows = farm.next_rows(4)
    _submit_until_killed(farm, "before_the_commit", lambda: rows)
    assert _num_accepted(farm) == num_accepted, "a batch is open whose submit died before its commit"
    farm.submit(rows)


def killed_after_the_commit(farm: Farm, chance: random.Random, short: bool) -> None:
    _accepted_all_the_same(farm, "after_the_commit")


def killed_after_publishing(farm: Farm, chance: random.Random, short: bool) -> None:
    """While a dispatcher acts, a submit leaves the publishing to it: so none does."""
    dispatchers = [seat for seat in farm.seats if seat.arguments == ["dispatcher"]]
    for seat in dispatchers:
        farm.leave_seat(seat)
    try:
        _accepted_all_the_same(farm, "after_publishing")
    finally:
        for seat in dispatchers:
            farm.take_seat(seat.name, "dispatcher", "dispatcher")


def _accepted_all_the_same(farm: Farm, point: str) -> None:
    num_accepted = _num_accepted(farm)
    num_submits = _submit_until_killed(farm, point, lambda: farm.next_rows(4))
    assert _num_accepted(farm) == num_accepted + num_submits, "a batch is lost whose submit died after its commit"
    farm.submitted += 4


def _submit_until_killed(farm: Farm, point: str, rows: Callable[[], list]) -> int:
    """Returns how many submits that took: one has nothing to publish where the queue is full."""
    armed = farm.arm("producer", point, "KILL")
    deadline = time.monotonic() + FIRE_SECONDS
    num_submits = 1
    while farm.submit(rows(), may_fail=True) is not None:
        if time.monotonic() > deadline:
            armed.unlink()
            raise TimeoutError(f"no submit came by {point} within {FIRE_SECONDS:g} s")
        num_submits += 1
        time.sleep(1)
    return num_submits


def _num_accepted(farm: Farm) -> int:
    return int(farm.ask("SELECT count(*) FROM batches WHERE state = 'open'")[0][0])
