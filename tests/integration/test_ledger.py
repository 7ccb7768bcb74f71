"""Every move of a job, on a real SQLite and a real PostgreSQL."""

import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import timedelta

import pytest
from sqlalchemy import func, select

from farm import batches, ledger, packs
from farm.database import Database
from farm.retries import Failure
from producer.questions.queries import batch_summary
from schemas.errors import DatabaseUnavailableError, LeaseLostError, NotFoundError, RenderError, SpecError
from schemas.records import ClaimedPack, FinishedImage
from schemas.states import JobState
from schemas.tables import Image, Pack, Result
from tests.integration.ledger_farm import (
    ENVIRONMENT,
    LEASE_SECONDS,
    TestClock,
    claimed_pack,
    images_of,
    job_rows,
    new_ledger,
    new_worker,
    open_batch,
    release_pack,
    staged,
    states,
)

ANY = Failure("render", "the device said no", retryable=True)


def test_nothing_of_a_batch_is_released_before_it_is_opened(database: Database) -> None:
    batch_id = batches.create_batch(database, "cats", "tiny", 5)
    ledger.stage_jobs(database, batch_id, [staged(1)])
    assert release_pack(database, batch_id, 8) is None
    batches.open_batch(database, batch_id)
    assert release_pack(database, batch_id, 8) is not None


def test_a_discarded_batch_leaves_no_row(database: Database) -> None:
    batch_id = batches.create_batch(database, "cats", "tiny", 5)
    ledger.stage_jobs(database, batch_id, [staged(1), staged(2)])
    batches.discard_batch(database, batch_id)
    assert job_rows(database, batch_id) == []


def test_a_large_batch_is_discarded_at_once_and_its_rows_go_piece_by_piece(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("farm.discarding.PIECE", 2)
    batch_id = batches.create_batch(database, "cats", "tiny", 5)
    ledger.stage_jobs(database, batch_id, [staged(n) for n in range(1, 5)])
    for num_left in (2, 0):
        assert batches.discard_batch(database, batch_id, within_seconds=0)
        assert states(database, batch_id) == ({JobState.PENDING: num_left} if num_left else {})
        assert batch_summary(database, batch_id).num_pending == num_left
        with pytest.raises(NotFoundError):
            batches.open_batch(database, batch_id)
        with pytest.raises(NotFoundError, match="takes no more rows"):
            ledger.stage_jobs(database, batch_id, [staged(9)])
    assert batches.discard_batch(database, batch_id)
    assert not batches.discard_batch(database, batch_id)


def test_an_open_batch_cannot_be_discarded(database: Database) -> None:
    batch_id = open_batch(database, 2)
    assert not batches.discard_batch(database, batch_id)
    assert states(database, batch_id) == {JobState.PENDING: 2}


def test_a_job_that_the_batch_has_already_is_not_staged_twice(database: Database) -> None:
    batch_id = batches.create_batch(database, "cats", "tiny", 5)
    assert ledger.stage_jobs(database, batch_id, [staged(1), staged(2)]) == 2
    assert ledger.stage_jobs(database, batch_id, [staged(2), staged(3)]) == 1
    assert states(database, batch_id) == {JobState.PENDING: 3}


def test_a_pack_goes_from_pending_to_done_with_one_result_for_each_job(database: Database) -> None:
    batch_id, worker_id = open_batch(database, 4), new_worker(database)
    pack = claimed_pack(database, batch_id, worker_id)
    assert states(database, batch_id) == {JobState.RUNNING: 4}
    assert packs.begin_rendering(database, pack.id, worker_id)
    ledger.finish_jobs(database, pack, ENVIRONMENT, images_of(pack))
    assert states(database, batch_id) == {JobState.DONE: 4}
    with database.begin(read_only=True) as tx:
        assert tx.execute(select(func.count()).select_from(Result)).scalar_one() == 4
        assert tx.execute(select(func.count()).select_from(Image)).scalar_one() == 4
        assert tx.execute(select(Pack.state)).scalar_one() == "finished"


def test_a_pack_holds_only_jobs_of_one_size(database: Database) -> None:
    batch_id = batches.create_batch(database, "cats", "tiny", 5)
    jobs = [staged(n, width=64 if n % 2 else 128) for n in range(1, 7)]
    ledger.stage_jobs(database, batch_id, jobs)
    batches.open_batch(database, batch_id)
    pack = claimed_pack(database, batch_id, new_worker(database))
    assert [job.number for job in job_rows(database, batch_id) if job.pack_id == pack.id] == [1, 3, 5]


def test_a_pack_is_claimed_by_exactly_one_of_many_workers(database: Database) -> None:
    batch_id = open_batch(database, 2)
    released = release_pack(database, batch_id, 8)
    assert released is not None
    workers = [new_worker(database) for _ in range(8)]
    start = threading.Barrier(len(workers))

    def claim(worker_id: str) -> bool:
        start.wait()
        return ledger.claim_pack(database, released.id, worker_id, LEASE_SECONDS) is not None

    with ThreadPoolExecutor(len(workers)) as pool:
        assert sum(pool.map(claim, workers)) == 1
    assert states(database, batch_id) == {JobState.RUNNING: 2}


def test_an_unknown_pack_is_not_claimed(database: Database) -> None:
    assert ledger.claim_pack(database, "0" * 32, new_worker(database), LEASE_SECONDS) is None


def test_many_workers_finish_packs_of_one_batch_at_once_and_the_counters_hold(database: Database) -> None:
    batch_id = open_batch(database, 24)
    packs = [claimed_pack(database, batch_id, new_worker(database), size=2) for _ in range(12)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda pack: ledger.finish_jobs(database, pack, ENVIRONMENT, images_of(pack)), packs))
    assert states(database, batch_id) == {JobState.DONE: 24}


def test_a_worker_that_lost_its_lease_cannot_finish(database: Database, clock: TestClock) -> None:
    batch_id, slow, quick = open_batch(database, 1), new_worker(database), new_worker(database)
    lost = claimed_pack(database, batch_id, slow)
    clock.advance(LEASE_SECONDS + 1)
    assert ledger.expire_leases(database, 3) == 1
    won = claimed_pack(database, batch_id, quick)
    with pytest.raises(LeaseLostError):
        ledger.finish_jobs(database, lost, ENVIRONMENT, images_of(lost))
    with pytest.raises(LeaseLostError):
        ledger.fail_jobs(database, lost, [job.id for job in lost.jobs], ANY, 3)
    ledger.give_back_pack(database, lost)
    assert packs.renew_leases(database, slow, [lost.id], LEASE_SECONDS) == frozenset()
    assert states(database, batch_id) == {JobState.RUNNING: 1}
    ledger.finish_jobs(database, won, ENVIRONMENT, images_of(won, "-won"))
    with database.begin(read_only=True) as tx:
        assert set(tx.execute(select(Result.worker_id)).scalars()) == {quick}


def test_finishing_compares_the_fence_and_not_the_time(database: Database, clock: TestClock) -> None:
    batch_id, worker_id = open_batch(database, 2), new_worker(database)
    pack = claimed_pack(database, batch_id, worker_id)
    clock.advance(10 * LEASE_SECONDS)  # nobody has expired the lease: the work still counts
    ledger.finish_jobs(database, pack, ENVIRONMENT, images_of(pack))
    assert states(database, batch_id) == {JobState.DONE: 2}


def test_a_renewed_lease_does_not_expire(database: Database, clock: TestClock) -> None:
    batch_id, worker_id = open_batch(database, 2), new_worker(database)
    pack = claimed_pack(database, batch_id, worker_id)
    for _ in range(4):
        clock.advance(LEASE_SECONDS * 0.7)
        assert packs.renew_leases(database, worker_id, [pack.id], LEASE_SECONDS) == {pack.id}
        assert ledger.expire_leases(database, 3) == 0


@pytest.mark.parametrize("quoted", ["\0", "\ud800"])
def test_a_job_can_fail_of_what_no_database_can_write(database: Database, quoted: str) -> None:
    batch_id, worker_id = open_batch(database, 1), new_worker(database)
    pack = claimed_pack(database, batch_id, worker_id)
    ledger.fail_jobs(database, pack, [pack.jobs[0].id], Failure.of(ValueError(f"no {quoted}")), 1)
    (job,) = job_rows(database, batch_id)
    assert (job.state, job.error.isprintable()) == (JobState.FAILED, True)


def test_a_pack_of_a_dead_worker_goes_back_at_once(database: Database) -> None:
    batch_id, dead, other = open_batch(database, 4), new_worker(database), new_worker(database)
    claimed_pack(database, batch_id, dead, size=2)
    claimed_pack(database, batch_id, other, size=2)
    assert ledger.expire_leases(database, 3, dead) == 1
    assert states(database, batch_id) == {JobState.PENDING: 2, JobState.RUNNING: 2}


def test_a_suspect_that_only_waited_for_its_turn_is_not_charged_with_the_death(database: Database) -> None:
    batch_id, worker_id = open_batch(database, 1), new_worker(database)
    for _ in range(1 + 3):
        claimed_pack(database, batch_id, worker_id)
        ledger.expire_leases(database, 3, worker_id)
    assert [(job.state, job.isolated, job.attempts) for job in job_rows(database, batch_id)] == [("pending", True, 0)]


def test_a_death_isolates_all_that_was_in_hand_and_counts_against_none_of_it(database: Database) -> None:
    """Of two packs either may have killed it: the one that renders, or the one that is prepared."""
    batch_id, worker_id = open_batch(database, 3), new_worker(database)
    rendering, _ = claimed_pack(database, batch_id, worker_id, 1), claimed_pack(database, batch_id, worker_id, 2)
    packs.begin_rendering(database, rendering.id, worker_id)
    ledger.expire_leases(database, 3, worker_id)
    assert [(job.isolated, job.attempts) for job in job_rows(database, batch_id)] == [(True, 0)] * 3


def test_a_pack_that_killed_its_worker_comes_back_as_packs_of_one(database: Database) -> None:
    batch_id, worker_id = open_batch(database, 3), new_worker(database)
    pack = claimed_pack(database, batch_id, worker_id)
    packs.begin_rendering(database, pack.id, worker_id)
    ledger.expire_leases(database, 3, worker_id)
    assert [job.attempts for job in job_rows(database, batch_id)] == [0, 0, 0]  # nobody alone, nobody to blame
    sizes = [len(claimed_pack(database, batch_id, new_worker(database)).jobs) for _ in range(3)]
    assert sizes == [1, 1, 1]


@pytest.mark.parametrize("retryable", [True, False])
def test_jobs_that_fail_by_their_own_fault_are_tried_again_together(
    database: Database, clock: TestClock, retryable: bool
) -> None:
    """A LoRA was missing for a while: they would be as they are alone."""
    batch_id, worker_id = open_batch(database, 4), new_worker(database)
    pack = claimed_pack(database, batch_id, worker_id)
    missing = Failure("input_file", "the LoRA is not there", retryable, is_of_the_job=True)
    ledger.fail_jobs(database, pack, [job.id for job in pack.jobs], missing, 3)
    assert ledger.retry_failed(database, batch_id) == (0 if retryable else 4)
    clock.advance(60)
    assert [pack.num_jobs for pack in ledger.release_packs(database, batch_id, 9, 8)] == [4]


def test_a_job_that_failed_a_pack_stays_alone_when_it_is_tried_again(database: Database, clock: TestClock) -> None:
    """Also if it failed by its own fault afterwards."""
    batch_id, worker_id = open_batch(database, 2), new_worker(database)
    pack = claimed_pack(database, batch_id, worker_id)
    ledger.fail_jobs(database, pack, [job.id for job in pack.jobs], ANY, 3)
    for _ in range(2):
        alone = claimed_pack(database, batch_id, worker_id)
        own = Failure("input", "no such thing", retryable=False, is_of_the_job=True)
        ledger.fail_jobs(database, alone, [job.id for job in alone.jobs], own, 3)
    assert ledger.retry_failed(database, batch_id) == 2
    assert [pack.num_jobs for pack in ledger.release_packs(database, batch_id, 9, 8)] == [1, 1]


def test_a_job_that_kills_every_worker_fails_after_its_attempts(database: Database, clock: TestClock) -> None:
    batch_id = open_batch(database, 1)
    for _ in range(1 + 3):  # the first time it is suspected, and alone from then on
        clock.advance(60)
        worker_id = new_worker(database)
        pack = claimed_pack(database, batch_id, worker_id)
        packs.begin_rendering(database, pack.id, worker_id)
        ledger.expire_leases(database, 3, worker_id)
    assert states(database, batch_id) == {JobState.FAILED: 1}
    (job,) = job_rows(database, batch_id)
    assert (job.attempts, job.error_code) == (3, "worker_died")


def test_a_permanent_error_fails_a_job_that_was_alone_at_once(database: Database) -> None:
    batch_id, worker_id = open_batch(database, 1), new_worker(database)
    pack = claimed_pack(database, batch_id, worker_id)
    failure = Failure.of(SpecError("prompt: no such embedding"))
    ledger.fail_jobs(database, pack, [pack.jobs[0].id], failure, 3)
    (job,) = job_rows(database, batch_id)
    assert (job.state, job.error) == ("failed", "prompt: no such embedding")


def test_a_job_that_asks_for_what_cannot_be_fails_at_once_and_its_neighbours_go_on(database: Database) -> None:
    batch_id, worker_id = open_batch(database, 3), new_worker(database)
    pack = claimed_pack(database, batch_id, worker_id)
    ledger.fail_jobs(database, pack, [pack.jobs[1].id], Failure.of(SpecError("clip_skip: 9: too deep")), 3)
    assert states(database, batch_id) == {JobState.RUNNING: 2, JobState.FAILED: 1}


def test_a_retryable_error_of_one_job_leaves_the_rest_of_its_pack_running(database: Database) -> None:
    batch_id, worker_id = open_batch(database, 3), new_worker(database)
    pack = claimed_pack(database, batch_id, worker_id)
    ledger.fail_jobs(database, pack, [pack.jobs[1].id], Failure.of(RenderError("out of memory")), 3)
    assert states(database, batch_id) == {JobState.RUNNING: 2, JobState.PENDING: 1}
    rest = [image for image in images_of(pack) if image.job_id != pack.jobs[1].id]
    ledger.finish_jobs(database, pack, ENVIRONMENT, rest)
    with database.begin(read_only=True) as tx:
        assert tx.execute(select(Pack.state)).scalar_one() == "finished"


def test_the_next_try_of_a_job_waits_while_others_go_on(database: Database, clock: TestClock) -> None:
    batch_id, worker_id = open_batch(database, 2), new_worker(database)
    alone = claimed_pack(database, batch_id, worker_id, size=1)
    ledger.fail_jobs(database, alone, [alone.jobs[0].id], Failure.of(RenderError("too hot")), 3)
    other = claimed_pack(database, batch_id, worker_id, size=1)
    assert other.jobs[0].id != alone.jobs[0].id
    assert release_pack(database, batch_id, 8) is None
    clock.advance(1.9)
    assert release_pack(database, batch_id, 8) is None
    clock.advance(0.1)
    assert claimed_pack(database, batch_id, worker_id).jobs[0].id == alone.jobs[0].id


def test_a_failed_job_keeps_its_last_traceback_until_it_is_tried_again(database: Database, clock: TestClock) -> None:
    batch_id, worker_id = open_batch(database, 1), new_worker(database)
    for n in range(3):
        clock.advance(60)
        pack = claimed_pack(database, batch_id, worker_id)
        ledger.fail_jobs(database, pack, [pack.jobs[0].id], Failure.of(RenderError(f"too hot, the {n}th time")), 3)
    (job,) = job_rows(database, batch_id)
    assert (job.state, job.error) == ("failed", "too hot, the 2th time")
    assert "RenderError: too hot, the 2th time" in job.traceback
    ledger.retry_failed(database, batch_id)
    (job,) = job_rows(database, batch_id)
    assert (job.error, job.traceback, job.retry_at) == (None, None, None)


def test_a_ledger_that_another_process_holds_is_waited_for(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farm.database._BUSY_SECONDS", 0.2)
    with closing(new_ledger(sqlite_url)) as database:
        other = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseUnavailableError, match=r"held by another process for 0\.2 s"):
            open_batch(database, 1)
        end = threading.Timer(0.1, other.close)
        end.start()
        open_batch(database, 1)
        end.join()


def test_a_pack_given_back_counts_no_attempt(database: Database) -> None:
    batch_id, worker_id = open_batch(database, 2), new_worker(database)
    ledger.give_back_pack(database, claimed_pack(database, batch_id, worker_id))
    assert [(job.state, job.attempts, job.isolated) for job in job_rows(database, batch_id)] == [
        ("pending", 0, False)
    ] * 2


def test_cancel_holds_for_every_claim_after_it(database: Database) -> None:
    batch_id, worker_id = open_batch(database, 6), new_worker(database)
    running = claimed_pack(database, batch_id, worker_id, size=2)
    queued = release_pack(database, batch_id, 2)
    assert queued is not None
    batches.cancel_batch(database, batch_id)
    assert ledger.claim_pack(database, queued.id, worker_id, LEASE_SECONDS) is None
    assert release_pack(database, batch_id, 2) is None
    assert not packs.begin_rendering(database, running.id, worker_id)
    while ledger.sweep_canceled(database, batch_id):
        pass
    ledger.give_back_pack(database, running)
    assert states(database, batch_id) == {JobState.CANCELED: 6}


def test_what_renders_goes_on_after_a_cancel_unless_it_is_stopped_too(database: Database) -> None:
    batch_id, worker_id = open_batch(database, 2), new_worker(database)
    running = claimed_pack(database, batch_id, worker_id)
    batches.stop_running(database, batch_id)  # of a batch that is open it stops nothing
    batches.cancel_batch(database, batch_id)
    assert packs.renew_leases(database, worker_id, [running.id], LEASE_SECONDS) == {running.id}
    batches.stop_running(database, batch_id)
    assert packs.renew_leases(database, worker_id, [running.id], LEASE_SECONDS) == frozenset()


def test_pause_holds_for_every_claim_after_it_and_resume_goes_on(database: Database) -> None:
    batch_id, worker_id = open_batch(database, 6), new_worker(database)
    running = claimed_pack(database, batch_id, worker_id, size=2)
    packs.begin_rendering(database, running.id, worker_id)
    queued = release_pack(database, batch_id, 2)
    assert queued is not None
    batches.pause_batch(database, batch_id)
    assert ledger.claim_pack(database, queued.id, worker_id, LEASE_SECONDS) is None
    assert release_pack(database, batch_id, 2) is None
    assert ledger.return_queued(database) == 1
    assert packs.renew_leases(database, worker_id, [running.id], LEASE_SECONDS) == {running.id}
    ledger.finish_jobs(database, running, ENVIRONMENT, images_of(running))
    assert states(database, batch_id) == {JobState.DONE: 2, JobState.PENDING: 4}
    batches.resume_batch(database, batch_id)
    assert len(claimed_pack(database, batch_id, worker_id).jobs) == 4


def test_a_paused_batch_can_be_canceled_and_only_an_open_one_paused(database: Database) -> None:
    batch_id = open_batch(database, 2)
    with pytest.raises(NotFoundError, match="is not paused"):
        batches.resume_batch(database, batch_id)
    batches.pause_batch(database, batch_id)
    with pytest.raises(NotFoundError, match="is not open"):
        batches.pause_batch(database, batch_id)
    batches.cancel_batch(database, batch_id)
    with pytest.raises(NotFoundError, match="neither open nor paused"):
        batches.reprioritise(database, batch_id, 9, None)


def test_a_pack_goes_back_when_its_window_has_closed(database: Database, clock: TestClock) -> None:
    batch_id = open_batch(database, 3)
    assert release_pack(database, batch_id, 2, clock.now + timedelta(seconds=60))
    assert ledger.return_queued(database) == 0
    clock.advance(60)
    assert ledger.return_queued(database) == 1
    assert states(database, batch_id) == {JobState.PENDING: 3}


def test_the_queued_packs_of_one_pair_go_back_for_a_new_order(database: Database) -> None:
    ours, other = open_batch(database, 2), open_batch(database, 2, pair="old")
    for batch_id in (ours, other):
        release_pack(database, batch_id, 2)
    batches.reprioritise(database, ours, None, 2.5)
    assert ledger.return_queued(database, "tiny") == 1
    assert states(database, other) == {JobState.QUEUED: 2}


def test_a_pack_that_is_done_when_its_batch_is_canceled_is_still_recorded(database: Database) -> None:
    batch_id, worker_id = open_batch(database, 2), new_worker(database)
    pack = claimed_pack(database, batch_id, worker_id)
    batches.cancel_batch(database, batch_id)
    ledger.finish_jobs(database, pack, ENVIRONMENT, images_of(pack))
    assert states(database, batch_id) == {JobState.DONE: 2}


def test_a_canceled_batch_cannot_be_canceled_again(database: Database) -> None:
    batch_id = open_batch(database, 1)
    batches.cancel_batch(database, batch_id)
    with pytest.raises(NotFoundError, match="is not open"):
        batches.cancel_batch(database, batch_id)


def test_retry_gives_failed_jobs_all_their_attempts_anew(database: Database) -> None:
    batch_id, worker_id = open_batch(database, 1), new_worker(database)
    pack = claimed_pack(database, batch_id, worker_id)
    ledger.fail_jobs(database, pack, [pack.jobs[0].id], Failure.of(SpecError("no")), 3)
    assert ledger.retry_failed(database, batch_id) == 1
    (job,) = job_rows(database, batch_id)
    assert (job.state, job.attempts, job.error) == ("pending", 0, None)


def test_a_pack_is_not_claimed_after_its_window(database: Database, clock: TestClock) -> None:
    batch_id = open_batch(database, 1)
    released = release_pack(database, batch_id, 8)
    assert released is not None
    with database.begin() as tx:
        tx.execute(Pack.__table__.update().values(start_before=clock.now))
    assert ledger.claim_pack(database, released.id, new_worker(database), LEASE_SECONDS) is None


def test_a_pack_that_was_claimed_ahead_does_not_begin_once_its_hours_are_over(
    database: Database, clock: TestClock
) -> None:
    """It goes back without an attempt, and is not claimed again."""
    batch_id, worker_id = open_batch(database, 1), new_worker(database)
    released = release_pack(database, batch_id, 8, clock.now + timedelta(seconds=10))
    assert released is not None
    pack = ledger.claim_pack(database, released.id, worker_id, LEASE_SECONDS)
    assert pack is not None
    clock.advance(10)
    assert not packs.begin_rendering(database, pack.id, worker_id)
    assert ledger.give_back_pack(database, pack) == 1
    (job,) = job_rows(database, batch_id)
    assert (job.state, job.attempts) == ("pending", 0)
    assert ledger.claim_pack(database, released.id, worker_id, LEASE_SECONDS) is None


def test_a_pack_begins_until_the_last_moment(database: Database, clock: TestClock) -> None:
    batch_id, worker_id = open_batch(database, 1), new_worker(database)
    released = release_pack(database, batch_id, 8, clock.now + timedelta(seconds=10))
    assert released is not None
    assert ledger.claim_pack(database, released.id, worker_id, LEASE_SECONDS) is not None
    clock.advance(9)
    assert packs.begin_rendering(database, released.id, worker_id)


def test_equal_files_of_two_batches_share_one_image_row(database: Database) -> None:
    worker_id = new_worker(database)
    first, second = (claimed_pack(database, open_batch(database, 1), worker_id) for _ in range(2))
    image = images_of(first)[0].image
    for pack in (first, second):
        (finished,) = images_of(pack)
        shared = type(finished)(**{**vars(finished), "image": image})
        ledger.finish_jobs(database, pack, ENVIRONMENT, [shared])
    with database.begin(read_only=True) as tx:
        assert tx.execute(select(func.count()).select_from(Image)).scalar_one() == 1
        assert tx.execute(select(func.count()).select_from(Result)).scalar_one() == 2


def test_a_pack_whose_worker_was_stopped_on_purpose_blames_nobody(database: Database) -> None:
    batch_id, worker_id = open_batch(database, 1), new_worker(database)
    pack = claimed_pack(database, batch_id, worker_id)
    packs.begin_rendering(database, pack.id, worker_id)
    ledger.expire_leases(database, 3, worker_id, blames=False)
    assert [(job.state, job.attempts, job.isolated) for job in job_rows(database, batch_id)] == [("pending", 0, False)]


def test_a_commit_whose_answer_was_lost_may_be_repeated(database: Database) -> None:
    batch_id, worker_id = open_batch(database, 3), new_worker(database)
    pack = claimed_pack(database, batch_id, worker_id)
    first = images_of(pack)[:2]
    ledger.finish_jobs(database, pack, ENVIRONMENT, first)
    ledger.finish_jobs(database, pack, ENVIRONMENT, first)
    assert states(database, batch_id) == {JobState.DONE: 2, JobState.RUNNING: 1}


def test_a_whole_pack_whose_answer_was_lost_may_be_recorded_again(database: Database) -> None:
    batch_id, worker_id = open_batch(database, 2), new_worker(database)
    pack = claimed_pack(database, batch_id, worker_id)
    for _ in range(2):
        ledger.finish_jobs(database, pack, ENVIRONMENT, images_of(pack))
    assert states(database, batch_id) == {JobState.DONE: 2}


def test_a_finish_records_all_or_nothing(database: Database) -> None:
    batch_id, worker_id = open_batch(database, 3), new_worker(database)
    pack = claimed_pack(database, batch_id, worker_id)
    ledger.fail_jobs(database, pack, [pack.jobs[1].id], ANY, 3)
    with pytest.raises(LeaseLostError):
        ledger.finish_jobs(database, pack, ENVIRONMENT, images_of(pack))
    assert states(database, batch_id) == {JobState.RUNNING: 2, JobState.PENDING: 1}
    with database.begin(read_only=True) as tx:
        assert tx.execute(select(func.count()).select_from(Image)).scalar_one() == 0


def test_a_pack_that_is_finished_in_parts_at_once_has_ended_afterwards(database: Database) -> None:
    batch_id, worker_id = open_batch(database, 24), new_worker(database)
    for _ in range(4):
        pack = claimed_pack(database, batch_id, worker_id, 6)
        start, images = threading.Barrier(6), images_of(pack)

        def finish(image: FinishedImage, pack: ClaimedPack = pack, start: threading.Barrier = start) -> None:
            start.wait()
            ledger.finish_jobs(database, pack, ENVIRONMENT, [image])

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(finish, images))
    assert states(database, batch_id) == {JobState.DONE: 24}
    with database.begin(read_only=True) as tx:
        assert tx.execute(select(Pack.state)).scalars().all() == ["finished"] * 4


def test_a_pack_that_expires_while_its_worker_finishes_ends_one_way_alone(database: Database) -> None:
    for number in range(1, 9):
        batch_id, worker_id = open_batch(database, 4), new_worker(database)
        pack, start = claimed_pack(database, batch_id, worker_id), threading.Barrier(2)

        def expire(worker_id: str = worker_id, start: threading.Barrier = start, number: int = number) -> None:
            start.wait()
            time.sleep(0.001 * number)
            ledger.expire_leases(database, 3, worker_id)

        with ThreadPoolExecutor(1) as pool:
            expiring = pool.submit(expire)
            start.wait()
            with suppress(LeaseLostError):
                ledger.finish_jobs(database, pack, ENVIRONMENT, images_of(pack, f"-{number}"))
            expiring.result()
        assert states(database, batch_id) in ({JobState.DONE: 4}, {JobState.PENDING: 4})


def test_a_release_that_finds_the_batch_canceled_leaves_no_pack(database: Database) -> None:
    batch_id = open_batch(database, 2)
    batches.cancel_batch(database, batch_id)
    assert release_pack(database, batch_id, 8) is None
    with database.begin(read_only=True) as tx:
        assert tx.execute(select(func.count()).select_from(Pack)).scalar_one() == 0


def test_retry_refuses_a_canceled_batch(database: Database) -> None:
    batch_id = open_batch(database, 1)
    batches.cancel_batch(database, batch_id)
    with pytest.raises(NotFoundError, match="is neither open nor paused"):
        ledger.retry_failed(database, batch_id)
