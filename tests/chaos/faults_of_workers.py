"""Workers that are killed or stopped, at a point, at random, or by their jobs."""

import os
import random
import signal
import time
from collections.abc import Sequence
from contextlib import suppress

from tests.chaos.farm import Farm, wait_for
from tests.chaos.firing import Injection, fire, runs
from tests.chaos.job_pool import poison_row


def worker_killed(point: str) -> Injection:
    def inject(farm: Farm, chance: random.Random, short: bool) -> None:
        fire(farm, "worker", point, "KILL")

    return inject


def killed_with_a_message(farm: Farm, chance: random.Random, short: bool) -> None:
    process_id = fire(farm, "worker", "popped", "STOP")
    time.sleep(chance.uniform(0, 1))
    os.kill(process_id, signal.SIGKILL)


def killed_at_random(farm: Farm, chance: random.Random, short: bool) -> None:
    time.sleep(chance.uniform(0, 2))
    ready = farm.ask("SELECT process_id FROM workers WHERE state = 'ready' AND pair = 'tiny' ORDER BY started_at")
    running = [process_id for (process_id,) in ready if runs(process_id)]
    if running:
        os.kill(chance.choice(running), signal.SIGKILL)


def stopped_past_its_lease(farm: Farm, chance: random.Random, short: bool) -> None:
    """With its images stored and their rows not yet written: what it does first when it goes on is to finish."""
    process_id = fire(farm, "worker", "before_the_row", "STOP")
    of_it = f"JOIN workers ON workers.id = packs.worker_id WHERE workers.process_id = {process_id}"
    held = f"SELECT packs.id FROM packs {of_it} AND packs.state = 'running'"
    packs = tuple(pack for (pack,) in farm.ask(held))
    (job,) = farm.ask(f"SELECT min(id) FROM jobs WHERE state = 'queued' AND pack_id IN ({_quoted(packs)})")[0]
    others = f"SELECT id FROM packs WHERE id NOT IN ({_quoted(packs)}) AND state = 'running'"
    elsewhere = f"SELECT 1 FROM jobs WHERE id = {job} AND pack_id IN ({others}) AND state = 'queued'"
    try:
        wait_for(lambda: not farm.ask(held), farm.rules.recovery_seconds, "the end of a stopped worker's lease")
        with suppress(TimeoutError):  # best of all while another worker renders the job that it is about to finish
            wait_for(lambda: farm.ask(elsewhere), 5, "another worker's try")
    finally:
        os.kill(process_id, signal.SIGCONT)


def stopped_in_a_transaction(farm: Farm, chance: random.Random, short: bool) -> None:
    """With its pack locked. The server ends a transaction that says nothing, or nobody could take the pack back. What
    a worker does with a job that failed takes several statements."""
    farm.arm("worker", "decoding", "NAN")
    process_id = fire(farm, "worker", "in_a_transaction", "STOP IN A TRANSACTION")
    of_it = f"JOIN workers ON workers.id = packs.worker_id WHERE workers.process_id = {process_id}"
    held = f"SELECT packs.id FROM packs {of_it} AND packs.state = 'running'"
    try:
        wait_for(lambda: not farm.ask(held), farm.rules.recovery_seconds, "the end of a stopped worker's lease")
    finally:
        os.kill(process_id, signal.SIGCONT)


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def poison(farm: Farm, chance: random.Random, short: bool) -> None:
    """In the middle of a batch of good jobs."""
    for poison in ("poison by SIGKILL", "poison by SIGSEGV", "poison in preparation"):
        rows = [*farm.next_rows(2), poison_row(f"{poison}, {farm.submitted}"), *farm.next_rows(1)]
        farm.submit(rows)
