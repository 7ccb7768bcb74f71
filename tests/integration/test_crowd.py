"""A crowd of threads does to one ledger, at random, all that is ever done to one.

At every moment each batch's counters are what its jobs say; afterwards every job ends, has one result where it is done,
and none was lost. ``HYPOTHESIS_PROFILE=long`` lets them go on for longer, and otherwise each time.
"""

import random
import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

from hypothesis import settings

from farm import batches, ledger, packs, removal
from farm.database import Database
from farm.retries import Failure
from farm.webhook_deliveries import note_events
from producer.dispatching.chores import batches_to_sweep
from producer.questions.queries import going_on, twins
from producer.submitting.stager import Stager
from producer.upkeep import verified_rows
from producer.upkeep.finding import Finding
from producer.upkeep.recorded_jobs import RecordedJob, batch_findings, job_findings
from schemas.errors import InputError, LeaseLostError, NotFoundError, RenderError, SpecError
from schemas.records import ClaimedPack, FinishedImage
from schemas.states import JobState
from tests.integration.ledger_farm import ENVIRONMENT, LEASE_SECONDS, TestClock, images_of, new_worker, staged

IS_LONG = settings.default.max_examples > 1000
NUM_THREADS = 6
NUM_STEPS = 2_000 if IS_LONG else 15
FAILURES = (Failure.of(RenderError("too hot")), Failure.of(SpecError("no such embedding")))
MAX_ATTEMPTS = 2


class Crowd:
    """What its threads know of each other: messages, packs in hand, how many jobs each batch was given."""

    def __init__(self, database: Database, clock: TestClock) -> None:
        self.database = database
        self.clock = clock
        self.worker_ids = [new_worker(database) for _ in range(4)]
        self.messages = ["0" * 32]
        self.in_hand: list[ClaimedPack] = []
        self.staging = [0]
        self.accepted: dict[int, int] = {}
        self.removed: set[int] = set()

    def work(self, seed: int) -> None:
        chance = random.Random(seed)
        steps = {
            self.submit: 2, self.release: 8, self.claim: 14, self.render: 16, self.take_back: 3, self.change: 4,
            self.discard: 1, self.remove: 2, self.look: 2,
        }  # fmt: skip
        for step in chance.choices(list(steps), list(steps.values()), k=NUM_STEPS):
            step(chance)

    def submit(self, chance: random.Random) -> None:
        batch_id = batches.create_batch(self.database, "cats", chance.choice(["tiny", "old"]), chance.randint(1, 3))
        self.staging.append(batch_id)
        numbers = chance.sample(range(1, 20), chance.randint(1, 12))  # of which other batches have the same
        jobs = [staged(number, width=chance.choice([64, 128])) for number in sorted(numbers)]
        with suppress(InputError, NotFoundError):  # it was discarded
            with Stager(self.database, batch_id) as stager:
                stager.stage(jobs[:4])
                stager.stage(jobs[4:] or jobs[:1])
            found = twins(self.database, batch_id, "f" * 64, 0, 100)
            ledger.link_jobs(self.database, batch_id, {twin.job_id: twin.image_id for twin in found})
            batches.open_batch(self.database, batch_id)
            self.accepted[batch_id] = len(jobs)

    def release(self, chance: random.Random) -> None:
        until = chance.choice([None, None, self.clock.now + timedelta(seconds=chance.randint(-5, 90))])
        num_packs, size = chance.randint(1, 3), chance.randint(1, 4)
        made = ledger.release_packs(self.database, self.any_batch(chance), num_packs, size, until)
        packs.note_published(self.database, [pack.id for pack in made])
        self.messages += [pack.id for pack in made]

    def claim(self, chance: random.Random) -> None:
        message, worker_id = chance.choice(self.messages[-20:]), chance.choice(self.worker_ids)
        last = chance.choice(["", *(pack.pack_key for pack in self.in_hand[-1:])])
        pack = ledger.claim_pack(self.database, message, worker_id, LEASE_SECONDS, last)
        if pack is not None:
            self.in_hand += [pack] * chance.choice([1, 1, 1, 2])  # twice: by two threads of its worker

    def render(self, chance: random.Random) -> None:
        try:
            pack = self.in_hand.pop(chance.choice([0, -1]))
        except IndexError:
            return
        packs.begin_rendering(self.database, pack.id, pack.worker_id)
        packs.renew_leases(self.database, pack.worker_id, [pack.id], LEASE_SECONDS)
        end = chance.choice([self.finish, self.finish, self.finish, self.fail, self.give_back, self.let_go])
        with suppress(LeaseLostError):
            end(chance, pack)

    def finish(self, chance: random.Random, pack: ClaimedPack) -> None:
        images = of_their_specs(pack)
        num_first = chance.randint(0, len(images))
        for part in (images[:num_first], images[num_first:]):
            for _ in range(chance.choice([1, 1, 2])):  # the answer was lost
                ledger.finish_jobs(self.database, pack, ENVIRONMENT, part)

    def fail(self, chance: random.Random, pack: ClaimedPack) -> None:
        some = [job.id for job in pack.jobs if chance.random() < 0.5]
        ledger.fail_jobs(self.database, pack, some, chance.choice(FAILURES), MAX_ATTEMPTS)
        rest = [image for image in of_their_specs(pack) if image.job_id not in some]
        ledger.finish_jobs(self.database, pack, ENVIRONMENT, rest)

    def give_back(self, _chance: random.Random, pack: ClaimedPack) -> None:
        ledger.give_back_pack(self.database, pack)

    def let_go(self, chance: random.Random, pack: ClaimedPack) -> None:
        """Its worker is gone."""
        if chance.random() < 0.3:
            ledger.expire_leases(self.database, MAX_ATTEMPTS, pack.worker_id, blames=chance.random() < 0.5)

    def take_back(self, chance: random.Random) -> None:
        """As the dispatcher does."""
        self.clock.advance(chance.uniform(0, LEASE_SECONDS / 4))
        ledger.expire_leases(self.database, MAX_ATTEMPTS)
        ledger.return_queued(self.database)
        self.sweep()
        note_events(self.database, 0.5)

    def sweep(self) -> None:
        for batch_id in batches_to_sweep(self.database):
            ledger.sweep_canceled(self.database, batch_id)

    def change(self, chance: random.Random) -> None:
        batch_id = self.any_batch(chance)
        changes = (batches.pause_batch, batches.resume_batch, batches.resume_batch, ledger.retry_failed)
        rare = (batches.cancel_batch, batches.stop_running)
        with suppress(NotFoundError):
            chance.choice([*changes * 4, *rare])(self.database, batch_id)
            batches.reprioritise(self.database, batch_id, chance.randint(1, 3), None)
            ledger.return_queued(self.database, chance.choice(["tiny", "old"]))

    def discard(self, chance: random.Random) -> None:
        batches.discard_batch(self.database, chance.choice(self.staging[-3:]))

    def remove(self, chance: random.Random) -> None:
        batch_id = self.any_batch(chance)
        with suppress(InputError, NotFoundError):
            num_jobs, _ = removal.remove_jobs(self.database, batch_id, 3)
            self.removed.add(batch_id)
            if not num_jobs:
                removal.remove_batch(self.database, batch_id)

    def look(self, chance: random.Random) -> None:
        assert self.flaws(self.any_batch(chance)) == []

    def flaws(self, batch_id: int) -> list[Finding]:
        """In the batch's row, and in those of its jobs, each in one question."""
        batch = verified_rows.counted_batch(self.database, batch_id)
        if batch is None:
            return []
        rows = verified_rows.jobs(self.database, batch_id, batch_alone=False)
        jobs = [RecordedJob(**{name: getattr(row, name) for name in RecordedJob.__dataclass_fields__}) for row in rows]
        found = [*batch_findings(batch), *(flaw for job in jobs for flaw in job_findings(job))]
        return [flaw for flaw in found if not flaw.is_note]

    def any_batch(self, chance: random.Random) -> int:
        """More often one of the last few."""
        known = [0, *list(self.accepted)]
        return chance.choice(known[-3:] if chance.random() < 0.7 else known)

    def end(self) -> None:
        """One after another, all that is left is done."""
        self.clock.advance(2 * LEASE_SECONDS)
        for batch_id in self.accepted:
            with suppress(NotFoundError):
                batches.resume_batch(self.database, batch_id)
        while left := going_on(self.database):
            self.clock.advance(1_000)
            ledger.expire_leases(self.database, MAX_ATTEMPTS)
            ledger.return_queued(self.database, "tiny")
            ledger.return_queued(self.database, "old")
            self.sweep()
            for batch_id in left:
                self.end_some(batch_id)

    def end_some(self, batch_id: int) -> None:
        for released in ledger.release_packs(self.database, batch_id, 3, 4):
            pack = ledger.claim_pack(self.database, released.id, self.worker_ids[0], LEASE_SECONDS, "")
            assert pack is not None
            ledger.finish_jobs(self.database, pack, ENVIRONMENT, of_their_specs(pack))


def of_their_specs(pack: ClaimedPack) -> list[FinishedImage]:
    """Equal ones of equal specs, in files of the same names."""
    return [
        replace(image, image=replace(image.image, uri=f"file:///images/{image.spec_digest}.png"))
        for image in images_of(pack)
    ]


def test_whatever_many_do_at_once_nothing_is_lost_or_counted_wrong(database: Database, clock: TestClock) -> None:
    crowd = Crowd(database, clock)
    seed = secrets.randbelow(2**31) if IS_LONG else 1
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        done = [threads.submit(crowd.work, seed + number) for number in range(NUM_THREADS)]
    failures = [failure for one in done if (failure := one.exception()) is not None]
    assert not failures, seed
    crowd.end()
    for batch_id, num_jobs in crowd.accepted.items():
        assert crowd.flaws(batch_id) == [], seed
        batch = verified_rows.counted_batch(database, batch_id)
        if batch_id not in crowd.removed:
            assert batch is not None
            ended = sum(batch.counters[state] for state in (JobState.DONE, JobState.FAILED, JobState.CANCELED))
            assert ended == num_jobs, seed
    assert list(verified_rows.unused_images(database)) == [], seed
