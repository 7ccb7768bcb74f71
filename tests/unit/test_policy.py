"""Retry decisions and release order: pure policy."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from farm.retries import Failure, Verdict, verdict
from producer.dispatching.release import (
    BatchShare,
    Turns,
    is_disputed,
    next_start,
    packs_wanted,
    start_before,
    work_of,
)
from producer.questions.following import Rate
from producer.questions.progress import duration
from schemas.errors import DeviceLostError, DeviceMemoryError, InvalidImageError, RenderError, SpecError
from schemas.spec import JobSpec
from schemas.states import JobState
from schemas.windows import Window


@pytest.mark.parametrize("retryable", [True, False])
def test_a_job_that_shared_its_pack_is_never_blamed(retryable: bool) -> None:
    assert verdict(retryable=retryable, alone=False, attempts=2, max_attempts=3) == Verdict(JobState.PENDING, False)


@pytest.mark.parametrize(
    ("retryable", "attempts", "state"),
    [(True, 0, "pending"), (True, 1, "pending"), (True, 2, "failed"), (False, 0, "failed")],
)
def test_a_job_that_was_alone_has_three_tries_unless_the_error_is_permanent(
    retryable: bool, attempts: int, state: str
) -> None:
    end = verdict(retryable=retryable, alone=True, attempts=attempts, max_attempts=3)
    assert (end.state, end.counts) == (JobState(state), True)


def test_each_try_waits_longer_than_the_one_before_and_none_for_ever() -> None:
    ends = [verdict(retryable=True, alone=True, attempts=n, max_attempts=1000) for n in (0, 1, 2, 3, 4, 900)]
    assert [end.wait_seconds for end in ends] == [2, 8, 32, 128, 300, 300]


def test_a_job_that_comes_back_alone_need_not_wait() -> None:
    assert verdict(retryable=True, alone=False, attempts=2, max_attempts=3).wait_seconds == 0


def test_an_error_says_itself_whether_another_try_helps() -> None:
    assert replace(Failure.of(RenderError("too hot")), traceback=None) == Failure("render", "too hot", True)
    assert replace(Failure.of(DeviceLostError("gone")), traceback=None) == Failure("device_lost", "gone", True)
    for error in (SpecError("no such thing"), DeviceMemoryError("too big"), InvalidImageError("black")):
        unfit = replace(Failure.of(error), traceback=None)
        assert unfit == Failure(error.code, str(error), False, is_of_the_job=True)
    assert Failure.of(ZeroDivisionError("division by zero")).code == "unexpected"


def test_a_failure_keeps_the_end_of_its_traceback() -> None:
    def fall(depth: int) -> None:
        if depth:
            fall(depth - 1)
        raise ZeroDivisionError("at the bottom" + "!" * 9_000)

    with pytest.raises(ZeroDivisionError) as raised:
        fall(30)
    kept = Failure.of(raised.value).traceback
    assert kept is not None
    assert len(kept) == 8_000
    assert kept.endswith("!\n")


@pytest.mark.parametrize(
    ("workers", "queued", "wanted"),
    [(0, 0, 4), (0, 4, 0), (1, 3, 1), (3, 5, 7), (1, 9, 0), (100, 300, 100), (100, 301, 0)],
)
def test_a_queue_is_filled_to_a_few_packs_for_each_worker_when_a_quarter_is_missing(
    workers: int, queued: int, wanted: int
) -> None:
    assert packs_wanted(workers, queued, 4) == wanted


def test_what_is_under_way_matters_where_two_batches_have_one_priority() -> None:
    assert is_disputed([share(1), share(2, 9), share(3)])
    assert not is_disputed([share(1), share(2, 9)])


def share(batch_id: int, priority: int = 5, pending: int = 100, work: float = 0, weight: float = 1) -> BatchShare:
    return BatchShare(batch_id, "tiny", priority, weight, pending, work)


def order(batches: list[BatchShare], num_packs: int, pack_size: int = 8, key: str = "1000x1000/1/x") -> list[int]:
    """The batches from which the first packs come, each pack taking ``pack_size`` jobs while there are so many."""
    turns, pending, taken = Turns(batches), {batch.id: batch.num_pending for batch in batches}, []
    while len(taken) < num_packs and (batch := turns.next()) is not None:
        num_jobs = min(pack_size, pending[batch.id])
        pending[batch.id] -= num_jobs
        turns.took(batch, num_jobs, work_of(key, num_jobs))
        taken.append(batch.id)
    return taken


def test_a_lower_priority_waits_until_the_higher_one_has_nothing_left() -> None:
    assert order([share(1, priority=1, pending=8), share(2, priority=9, pending=16)], 9) == [2, 2, 1]


def test_batches_of_one_priority_take_turns_and_the_busier_one_waits() -> None:
    assert order([share(1, work=16), share(2)], 5) == [2, 2, 1, 2, 1]


def test_a_small_batch_is_not_starved_by_a_big_one_that_came_first() -> None:
    assert 2 in order([share(1, pending=10**6), share(2, pending=1)], 2)


def test_a_batch_whose_packs_hold_one_job_each_still_fills_the_queue() -> None:
    assert order([share(1, pending=8)], 20, pack_size=1) == [1] * 8


def test_a_batch_that_had_nothing_to_give_is_not_asked_again() -> None:
    turns = Turns([share(1)])
    turns.took(share(1), 0, 0)
    assert turns.next() is None


def test_a_batch_of_twice_the_weight_gets_twice_the_turns() -> None:
    assert order([share(1), share(2, weight=2)], 6).count(2) == 4


def test_shares_are_of_the_devices_time_and_not_of_the_number_of_jobs() -> None:
    dear, cheap = share(1), share(2)
    turns, taken = Turns([dear, cheap]), []
    for _ in range(10):
        batch = turns.next()
        assert batch is not None
        turns.took(batch, 8, work_of("1024x1024/40/x" if batch.id == 1 else "512x512/40/x", 8))
        taken.append(batch.id)
    assert taken.count(2) == 4 * taken.count(1)


def test_work_is_megapixels_times_steps() -> None:
    assert work_of("1024x1024/40/EulerDiscreteScheduler", 8) == pytest.approx(1.048576 * 40 * 8)
    assert work_of(JobSpec(prompt="cat", seed=1, loras=[]).pack_key, 1) == pytest.approx(1.048576 * 40)


@pytest.mark.parametrize(
    ("hour", "minute", "seconds", "until"),
    [(21, 0, 60, None), (22, 0, 60, 479), (5, 58, 60, 1), (5, 59, 60, None), (5, 59, 0, 1)],
)
def test_no_pack_begins_that_would_not_end_before_the_window_does(
    hour: int, minute: int, seconds: int, until: int | None
) -> None:
    now = datetime(2026, 11, 21, hour, minute, tzinfo=UTC)
    latest = start_before([Window.parse("00:00-06:00, 22:00-04:00 UTC")], now, seconds)
    assert latest == (None if until is None else now + timedelta(minutes=until))


@pytest.mark.parametrize(("hour", "minute", "until"), [(22, 0, 48), (22, 47, 1), (22, 48, None), (5, 0, None)])
@pytest.mark.parametrize("hours", [7.5, 8, 9.5, 100])
def test_in_the_first_tenth_of_its_hours_a_pack_begins_whatever_it_takes(
    hour: int, minute: int, until: int | None, hours: float
) -> None:
    now = datetime(2026, 11, 21, hour, minute, tzinfo=UTC)
    latest = start_before([Window.parse("22:00-06:00 UTC")], now, hours * 3600)
    assert latest == (None if until is None else now + timedelta(minutes=until))


def test_of_two_windows_the_tenth_is_of_the_hours_that_they_share() -> None:
    windows = [Window.parse("22:00-06:00 UTC"), Window.parse("01:00-09:00 UTC")]
    begun = datetime(2026, 11, 22, 1, 0, tzinfo=UTC)
    assert start_before(windows, begun, 36_000) == begun + timedelta(minutes=30)
    assert next_start(windows, begun, 36_000) == begun
    assert next_start(windows, begun + timedelta(minutes=30), 36_000) == begun + timedelta(days=1)
    assert next_start([Window.parse("mon 10:00-11:00 UTC"), Window.parse("tue 10:00-11:00 UTC")], begun, 1) is None


def test_without_a_window_a_pack_may_begin_at_any_time() -> None:
    latest = start_before([], datetime(2026, 11, 21, tzinfo=UTC), 3600)
    assert latest is not None
    assert latest.year == 9999


def test_the_rate_leaves_out_the_loading_before_the_first_images() -> None:
    rate = Rate()
    for second in range(30):
        rate.note(second, 0)
    rate.note(30, 8)
    assert rate.per_second is None
    rate.note(34, 16)
    assert rate.per_second == 2.0


def test_the_rate_is_that_of_the_last_minute() -> None:
    rate = Rate()
    for second in range(200):
        rate.note(second, second if second < 100 else 100 + (second - 100) * 3)
    assert rate.per_second == pytest.approx(3.0)


@pytest.mark.parametrize(("seconds", "text"), [(6, "0:06"), (75.4, "1:15"), (3700, "1:01:40")])
def test_durations_read_as_clocks(seconds: float, text: str) -> None:
    assert duration(seconds) == text
