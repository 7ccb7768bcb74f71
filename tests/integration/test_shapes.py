"""Devices keep to a size while there is work of it, and no size, batch or pair is kept waiting for that."""

import heapq
from collections import deque
from dataclasses import dataclass

from sqlalchemy import select, update

from farm import batches, ledger
from farm.database import Database
from farm.odd_shapes import ODD_SHAPE_SECONDS, odd_shape_seconds
from schemas.records import ClaimedPack
from schemas.tables import Job, Pack
from tests.integration.ledger_farm import ENVIRONMENT, TestClock, images_of, new_worker, release_pack, staged, states

LEASE_SECONDS = 60.0
PACKS_PER_WORKER = 4


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


def claim(
    database: Database, message: str, worker_id: str, pack_key: str, odd_seconds: float = ODD_SHAPE_SECONDS
) -> ClaimedPack:
    pack = ledger.claim_pack(database, message, worker_id, LEASE_SECONDS, pack_key, odd_seconds)
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


def test_a_worker_whose_packs_take_long_passes_over_others_for_longer(database: Database, clock: TestClock) -> None:
    batch_id, worker_id = mixed_batch(database, [64, 128, 64, 64]), new_worker(database)
    messages = released(database, batch_id, 4)
    odd_seconds = odd_shape_seconds(20, PACKS_PER_WORKER)
    pack_key = claim(database, messages[0], worker_id, "").pack_key
    clock.advance(odd_seconds - 1)
    assert width_of(claim(database, messages[1], worker_id, pack_key, odd_seconds)) == 64
    clock.advance(1)
    assert width_of(claim(database, messages[2], worker_id, pack_key, odd_seconds)) == 128


def test_a_worker_keeps_to_a_size_through_packs_of_another_guidance(database: Database, clock: TestClock) -> None:
    batch_id = batches.create_batch(database, "swept", "tiny", 5)
    fields = [(64, 4.0), (128, 4.0), (64, 6.0), (128, 6.0), (64, 1.0)]
    rows = [staged(n, width=width, guidance_scale=scale) for n, (width, scale) in enumerate(fields, 1)]
    ledger.stage_jobs(database, batch_id, rows)
    batches.open_batch(database, batch_id)
    worker_id, pack_key, claimed = new_worker(database), "", []
    for message in released(database, batch_id, 5):
        pack = claim(database, message, worker_id, pack_key)
        pack_key = pack.pack_key
        claimed.append(pack.jobs[0].id)
    assert [fields[job_id - 1] for job_id in claimed] == [(64, 4.0), (64, 6.0), (128, 4.0), (128, 6.0), (64, 1.0)]


def test_packs_of_a_hundred_guidances_are_full_until_the_batch_ends(database: Database) -> None:
    batch_id = batches.create_batch(database, "swept", "tiny", 5)
    scales = [2 + n / 10 for n in range(100)] * 6 + [20 + n / 10 for n in range(20)]
    rows = [staged(n, width=64, guidance_scale=scale) for n, scale in enumerate(scales, 1)]
    ledger.stage_jobs(database, batch_id, rows)
    batches.open_batch(database, batch_id)
    made = [ledger.release_packs(database, batch_id, 25, 4) for _ in range(7)]
    assert [pack.num_jobs for packs in made for pack in packs] == [4] * 155
    assert len({pack.pack_key for packs in made for pack in packs}) == 1
    with database.begin(read_only=True) as tx:
        rows = tx.execute(select(Job.pack_id, Job.pack_key).distinct()).all()
    assert len(rows) == 100 + 100 + 20  # four of a scale in one pack, the other two in another beside those of one more


def test_jobs_of_an_earlier_versions_keys_are_packed_with_those_of_today(database: Database) -> None:
    batch_id = mixed_batch(database, [64] * 8)
    with database.begin() as tx:
        key = tx.execute(select(Job.pack_key).limit(1)).scalar_one()
        tx.execute(update(Job).where(Job.number > 3).values(pack_key=f"{key}//0123456789abcdef"))
    made = ledger.release_packs(database, batch_id, 1, 8)
    assert [(pack.num_jobs, pack.pack_key) for pack in made] == [(8, key)]


def test_a_pack_that_may_no_longer_begin_does_not_stand_in_the_way(database: Database, clock: TestClock) -> None:
    batch_id, worker_id = mixed_batch(database, [64, 128]), new_worker(database)
    late = release_pack(database, batch_id, 1, clock.now)
    fine = release_pack(database, batch_id, 1)
    assert late is not None
    assert fine is not None
    assert claim(database, late.id, worker_id, "").id == fine.id


@dataclass
class PlayedFarm:
    """Four devices for each pair; each takes ``pack_seconds`` for a pack, by the clock."""

    database: Database
    clock: TestClock
    pack_seconds: float
    num_claims: int = 0
    num_changes: int = 0

    def render(self, opened: dict[str, int]) -> None:
        """All jobs of the pairs' batches, in packs of one."""
        database, start = self.database, self.clock.now
        odd_seconds = odd_shape_seconds(self.pack_seconds, PACKS_PER_WORKER)
        messages = {pair: released(database, batch_id, 4 * PACKS_PER_WORKER) for pair, batch_id in opened.items()}
        devices = [(0.01 * n, new_worker(database, pair), pair, "") for n, pair in enumerate([*opened] * 4)]
        while devices:
            free_at, worker_id, pair, pack_key = heapq.heappop(devices)
            self.clock.now = start
            self.clock.advance(free_at)
            messages[pair] += released(database, opened[pair], 1)  # what the dispatcher does for what was claimed
            if not messages[pair]:
                continue
            pack = claim(database, messages[pair].popleft(), worker_id, pack_key, odd_seconds)
            ledger.finish_jobs(database, pack, ENVIRONMENT, images_of(pack))
            self.num_claims += 1
            self.num_changes += pack.pack_key != pack_key and pack_key != ""
            heapq.heappush(devices, (free_at + self.pack_seconds, worker_id, pair, pack.pack_key))

    def longest_wait(self) -> float:
        with self.database.begin(read_only=True) as tx:
            rows = tx.execute(select(Pack.claimed_at, Pack.released_at))
            return max((row.claimed_at - row.released_at).total_seconds() for row in rows)


def test_of_many_devices_and_pairs_each_changes_size_seldom_and_nothing_waits_for_long(
    on_sqlite: Database, clock: TestClock
) -> None:
    """Five sizes in turn and one odd one."""
    sizes = [512 if n % 40 == 20 else [64, 72, 80, 88, 96][n % 5] for n in range(48)]
    opened = {f"pair-{n}": mixed_batch(on_sqlite, sizes, f"pair-{n}") for n in range(4)}
    farm = PlayedFarm(on_sqlite, clock, pack_seconds=8)
    farm.render(opened)
    assert all(states(on_sqlite, batch_id) == {"done": 48} for batch_id in opened.values())
    assert farm.num_claims == 4 * 48
    assert farm.num_changes < farm.num_claims / 4  # in the order of the manifest it would be each time
    assert farm.longest_wait() <= ODD_SHAPE_SECONDS + 24


def test_devices_keep_to_a_size_though_a_pack_takes_long(on_sqlite: Database, clock: TestClock) -> None:
    """Each pack waits for more than a minute, as four of them do for each device."""
    farm = PlayedFarm(on_sqlite, clock, pack_seconds=40)
    farm.render({"tiny": mixed_batch(on_sqlite, [64, 72, 80] * 14)})
    assert farm.num_claims == 3 * 14
    assert farm.num_changes < farm.num_claims / 4
    assert farm.longest_wait() <= odd_shape_seconds(40, PACKS_PER_WORKER) + 3 * 40
