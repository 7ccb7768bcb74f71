"""The network, the image store, the disk, the clock."""

import random
import time

from tests.chaos.farm import Farm
from tests.chaos.firing import visit


def slow_network(farm: Farm, chance: random.Random, short: bool) -> None:
    for proxy in _proxies(farm):
        proxy.delay(0.5)
    time.sleep(5 if short else 15)
    for proxy in _proxies(farm):
        proxy.delay(0)


def resets(farm: Farm, chance: random.Random, short: bool) -> None:
    for _ in range(2 if short else 6):
        for proxy in _proxies(farm):
            proxy.reset(0.5, chance)
        time.sleep(chance.uniform(0, 1))


def half_open(farm: Farm, chance: random.Random, short: bool) -> None:
    deaf = [(proxy, proxy.go_deaf()) for proxy in _proxies(farm)]
    time.sleep(6 if short else 20)
    for proxy, links in deaf:
        proxy.forget(links)


def _proxies(farm: Farm) -> list:
    return [proxy for proxy in (farm.redis_proxy, farm.database_proxy) if proxy is not None]


def store_refuses(farm: Farm, chance: random.Random, short: bool) -> None:
    farm.feed(3 * farm.rules.pack_size)
    farm.store.refuse()
    time.sleep(3 if short else 15)
    farm.store.mend()


def disk_full(farm: Farm, chance: random.Random, short: bool) -> None:
    farm.feed(3 * farm.rules.pack_size)
    full = farm.arm("worker", "disk_full", "")
    time.sleep(3 if short else 15)
    full.unlink()


def wrong_clock(farm: Farm, chance: random.Random, short: bool) -> None:
    visitors = {f"clock{seconds:+}": {"CHAOS_CLOCK_SECONDS": str(seconds)} for seconds in (-600, 600)}
    visit(farm, visitors, 3 if short else 15)
