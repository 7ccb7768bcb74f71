"""Devices keep to a size while there is work of it, and no size, batch or pair is kept waiting for that."""

import heapq
from collections import deque

from sqlalchemy import select

from farm import batches, ledger
from farm.claims import ODD_SHAPE_SECONDS
from farm.database import Database
from schemas.records import ClaimedPack
from schemas.tables import Job, Pack
from tests.integration.ledger_farm import ENVIRONMENT, TestClock, images_of, new_worker, release_pack, staged, states

LEASE_SECONDS = 60.0


def mixed_batch(database: Database, sizes: list[int], pair: str = "tiny") -> int:
    """One job of each width, in this order."""
    batch_id = batches.create_batch(database, "mixed", pair, 5)
    ledger.stage_jobs(database, batch_id, [staged(n, width=width) for n, width in enumerate(sizes, 1)])
    batches.open_batch(database, batch_id)
    return batch_id


def released(database: Database, batch_id: int, num_packs: int) -> deque[str]:
    """Packs of one job each, and so the messages that workers get of them."""
    packs = [release_pack(database, batch_id, 1) for _ in range(num_packs)]
    return deque(pack.id for pack in packs if pack is not None)


def claim(database: Database, message: str, worker_id: str, pack_key: str) -> ClaimedPack:
    pack = ledger.claim_pack(database, message, worker_id, LEASE_SECONDS, pack_key)
    assert pack is not None
    return pack


def width_of(pack: ClaimedPack) -> int:
    return int(pack.pack_key.split("x")[0])


def test_a_worker_keeps_to_its_size_and_every_message_still_gets_a_pack(database: Database, clock: TestClock) -> None:
    batch_id, worker_id = mixed_batch(database, [64, 128, 64, 128, 64, 128]), new_worker(database)
    pack_key, widths = "", []
    for message in released(database, batch_id, 6):
        pack = claim(database, message, worker_id, pack_key)
        pack_key = pack.pack_key
        widths.append(width_of(pack))
    assert widths == [64, 64, 64, 128, 128, 128]


def test_in_whatever_order_the_messages_come_each_gets_a_pack(database: Database, clock: TestClock) -> None:
    """Workers take them one after the other, and are not equally quick to claim."""
    batch_id, worker_id = mixed_batch(database, [64, 64, 64]), new_worker(database)
    messages = []
    for _ in range(3):
        messages += released(database, batch_id, 1)
        clock.advance(1)
    claimed = {claim(database, messages[place], worker_id, "").id for place in (2, 0, 1)}
    assert claimed == set(messages)


def test_a_message_that_comes_twice_claims_nothing_more_than_there_is(database: Database) -> None:
    batch_id, worker_id = mixed_batch(database, [64, 128]), new_worker(database)
    (first, second) = released(database, batch_id, 2)
    claim(database, first, worker_id, "")
    claim(database, first, worker_id, "")
    for message in (first, second):
        assert ledger.claim_pack(database, message, worker_id, LEASE_SECONDS, "") is None


def test_a_message_of_a_pack_that_went_back_claims_none_that_was_released_after_it(
    database: Database, clock: TestClock
) -> None:
    """Else what was released first would still be begun first, whatever its batch's priority is by now."""
    batch_id, worker_id = mixed_batch(database, [64, 128, 64]), new_worker(database)
    messages = released(database, batch_id, 3)
    pack_key = claim(database, messages[0], worker_id, "").pack_key
    claim(database, messages[1], worker_id, pack_key)  # which claims the third
    ledger.return_queued(database, "tiny")
    clock.advance(1)
    (message,) = released(database, batch_id, 1)
    for stale in messages:
        assert ledger.claim_pack(database, stale, worker_id, LEASE_SECONDS, "") is None
    claim(database, message, worker_id, "")


def test_another_batch_gives_nothing_of_its_share_for_a_size(database: Database) -> None:
    """Else the batch whose size the devices have would get them all."""
    ours, theirs = mixed_batch(database, [64]), mixed_batch(database, [128, 128])
    worker_id, (message,) = new_worker(database), released(database, ours, 1)
    pack_key = claim(database, released(database, theirs, 2)[0], worker_id, "").pack_key
    assert claim(database, message, worker_id, pack_key).batch_id == ours


def test_an_odd_size_that_has_waited_goes_before_the_size_that_a_device_has(
    database: Database, clock: TestClock
) -> None:
    batch_id, worker_id = mixed_batch(database, [64, 128, 64, 64]), new_worker(database)
    messages = released(database, batch_id, 4)
    pack_key = claim(database, messages[0], worker_id, "").pack_key
    assert width_of(claim(database, messages[1], worker_id, pack_key)) == 64
    clock.advance(ODD_SHAPE_SECONDS)
    assert width_of(claim(database, messages[2], worker_id, pack_key)) == 128


def test_a_pack_that_may_no_longer_begin_does_not_stand_in_the_way(database: Database, clock: TestClock) -> None:
    batch_id, worker_id = mixed_batch(database, [64, 128]), new_worker(database)
    late = release_pack(database, batch_id, 1, clock.now)
    fine = release_pack(database, batch_id, 1)
    assert late is not None
    assert fine is not None
    assert claim(database, late.id, worker_id, "").id == fine.id


def test_of_many_devices_and_pairs_each_changes_size_seldom_and_nothing_waits_for_long(
    on_sqlite: Database, clock: TestClock
) -> None:
    """Five pairs, four devices each, five sizes in turn and one odd one; every device takes 8 s for a pack."""
    database, num_packs, start = on_sqlite, 48, clock.now
    pairs = [f"pair-{n}" for n in range(5)]
    opened = {pair: mixed_batch(database, _sizes(num_packs), pair) for pair in pairs}
    messages = {pair: released(database, batch_id, 12) for pair, batch_id in opened.items()}
    devices = [(0.01 * n, new_worker(database, pair), pair, "") for n, pair in enumerate(pairs * 4)]
    num_changes = num_claims = 0
    while devices:
        free_at, worker_id, pair, pack_key = heapq.heappop(devices)
        clock.now = start
        clock.advance(free_at)
        messages[pair] += released(database, opened[pair], 1)  # what the dispatcher does for what was claimed
        if not messages[pair]:
            continue
        pack = claim(database, messages[pair].popleft(), worker_id, pack_key)
        ledger.finish_jobs(database, pack, ENVIRONMENT, images_of(pack))
        num_claims += 1
        num_changes += pack.pack_key != pack_key and pack_key != ""
        heapq.heappush(devices, (free_at + 8, worker_id, pair, pack.pack_key))
    assert all(states(database, batch_id) == {"done": num_packs} for batch_id in opened.values())
    assert num_claims == 5 * num_packs
    assert num_changes < num_claims / 4  # in the order of the manifest it would be each time
    with database.begin(read_only=True) as tx:
        waited = [row.claimed_at - row.released_at for row in tx.execute(select(Pack.claimed_at, Pack.released_at))]
        assert tx.execute(select(Job.id).where(Job.state != "done")).all() == []
    assert max(waited).total_seconds() <= ODD_SHAPE_SECONDS + 24


def _sizes(num_packs: int) -> list[int]:
    sizes = [64, 72, 80, 88, 96]
    return [512 if n % 40 == 20 else sizes[n % len(sizes)] for n in range(num_packs)]
