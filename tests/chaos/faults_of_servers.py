"""Redis and PostgreSQL: killed, emptied, stopped, full, cut off in mid-COMMIT."""

import os
import random
import signal
import time

from farm.redis_client import redis_client
from tests.chaos.farm import Farm, wait_for
from tests.chaos.firing import FIRE_SECONDS
from tests.chaos.proxy import CUTS, ENDS


def redis_killed(farm: Farm, chance: random.Random, short: bool) -> None:
    farm.redis.kill()
    time.sleep(chance.uniform(0, 2))
    farm.redis.start()


def redis_flushed(farm: Farm, chance: random.Random, short: bool) -> None:
    farm.redis.flush()


def redis_stopped(farm: Farm, chance: random.Random, short: bool) -> None:
    os.kill(farm.redis.pid, signal.SIGSTOP)
    try:
        time.sleep(7 if short else 30)  # 5 s is what clients wait for an answer
    finally:
        os.kill(farm.redis.pid, signal.SIGCONT)


def redis_full(farm: Farm, chance: random.Random, short: bool) -> None:
    with redis_client(farm.redis.url) as client:
        client.config_set("maxmemory", 1)
        farm.feed(3 * farm.rules.pack_size)
        time.sleep(3 if short else 15)
        client.config_set("maxmemory", 0)


# --- PostgreSQL ---------------------------------------------------------------------------------------------------


def postgres_shut_down(farm: Farm, chance: random.Random, short: bool) -> None:
    """SIGQUIT is the immediate shutdown: no checkpoint, clients cut off, recovery at the next start, a minute later."""
    server = farm.shared.postgres
    os.kill(server.pid, signal.SIGQUIT)
    server.stop()
    time.sleep(chance.uniform(0, 2) if short else 60)
    server.start()


def commit_cut(farm: Farm, chance: random.Random, short: bool) -> None:
    """The backend or its connection ends in mid-COMMIT: the commit is lost, or done and only its answer is lost.
    A worker's finish is one statement, which commits by itself."""
    assert farm.database_proxy is not None
    cuts = [one for _ in range(1 if short else 3) for one in zip(chance.sample(CUTS, 2), ENDS, strict=True)]
    for cut, end in cuts:
        num_before = farm.database_proxy.num_cut
        farm.feed(2 * farm.rules.pack_size)
        farm.database_proxy.cut_next_commit(cut, end)
        farm.arm("worker", "decoding", "NAN")  # what is done with a job that failed ends with a COMMIT
        wait_for(lambda n=num_before: farm.database_proxy.num_cut > n, FIRE_SECONDS, "an end to cut")  # type: ignore[misc, union-attr]
        time.sleep(chance.uniform(0, 0.5))


def backends_terminated(farm: Farm, chance: random.Random, short: bool) -> None:
    for _ in range(2 if short else 6):
        backends = farm.ask(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'nightshift'"
            " ORDER BY (state = 'active') DESC, xact_start"
        )
        if backends:
            farm.ask(f"SELECT pg_terminate_backend({chance.choice(backends)[0]})")
        time.sleep(chance.uniform(0, 1))
