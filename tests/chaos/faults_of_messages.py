"""Messages that come too often, or of other contracts; dispatchers that die; a migration under way."""

import random

from farm.broker import Broker
from schemas.messages import TASK_NAME
from tests.chaos.farm import QUEUE, Farm
from tests.chaos.firing import fire, visit


def told_a_hundred_times(farm: Farm, chance: random.Random, short: bool) -> None:
    farm.feed(3 * farm.rules.pack_size)
    packs = [pack for (pack,) in farm.ask("SELECT id FROM packs ORDER BY released_at DESC LIMIT 12")]
    messages = packs[:1] * 100 + packs
    chance.shuffle(messages)
    broker = Broker(farm.redis.url)
    broker.publish(QUEUE, messages)
    broker.close()


def other_contracts(farm: Farm, chance: random.Random, short: bool) -> None:
    """Messages of other versions, and workers that read other versions and so refuse ours."""
    broker = Broker(farm.redis.url)
    for version in (0, 2, "1"):
        message = {"version": version, "pack_id": "0" * 32}
        broker.app.send_task(TASK_NAME, kwargs=message, queue=QUEUE)
    broker.close()
    visitors = {f"contract-{version}": {"CHAOS_CONTRACT_VERSION": str(version)} for version in (0, 2)}
    visit(farm, visitors, 2 if short else 10)


def migrated_while_it_runs(farm: Farm, chance: random.Random, short: bool) -> None:
    for _ in range(1 if short else 3):
        farm.feed(3 * farm.rules.pack_size)
        farm.command("db", "upgrade")


def dispatcher_killed(farm: Farm, chance: random.Random, short: bool) -> None:
    for point in ("released", "after_publishing"):
        fire(farm, "dispatcher", point, "KILL")
