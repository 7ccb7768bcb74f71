"""What is said of a batch that waits, or will be late. Time is given."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from producer.questions.outlook import local_time, outlook_at
from producer.questions.prospect import Prospect
from producer.questions.queries import BatchSummary
from schemas.errors import InputError
from schemas.timing import Timing, instant

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
NIGHTS = "22:00-06:00 Europe/Berlin"


def batch(state: str = "open", num_done: int = 0, **timing: object) -> BatchSummary:
    fields = {"window": None, "not_before": None, "deadline": None, **timing}
    counts = {"num_queued": 0, "num_running": 0, "num_failed": 0, "num_canceled": 0}
    return BatchSummary(3, "cats", "tiny", state, 5, 1.0, **fields, created_at=NOON,  # type: ignore[arg-type]
                        num_pending=3600 - num_done, num_done=num_done, **counts)  # fmt: skip


def test_a_batch_that_may_be_rendered_waits_for_nothing() -> None:
    assert str(outlook_at(NOON, batch(), "")) == ""


def test_a_batch_says_when_its_window_opens() -> None:
    assert outlook_at(NOON, batch(window=NIGHTS), "").waits == "its window opens Sat 2026-11-21 22:00 Europe/Berlin"
    assert outlook_at(NOON + timedelta(hours=10), batch(window=NIGHTS), "").waits is None


def test_the_farms_window_counts_as_well() -> None:
    assert outlook_at(NOON, batch(), "sun 13:00-14:00 UTC").waits == "its window opens Sun 2026-11-22 13:00 UTC"
    never = outlook_at(NOON, batch(window="mon 10:00-11:00 UTC"), "tue 10:00-11:00 UTC")
    assert never.waits == "its window and the farm's are never open together"


def test_a_paused_batch_says_how_to_go_on() -> None:
    assert outlook_at(NOON, batch("paused"), "").waits == "paused; `nightshift resume 3` goes on"


def test_nobody_knows_when_a_paused_batch_ends() -> None:
    ahead = outlook_at(NOON, batch("paused", deadline=NOON + timedelta(minutes=1)), "", 1.0)
    assert (ahead.ends, ahead.late) == (None, None)


def test_a_canceled_batch_waits_for_nothing_though_its_jobs_are_not_marked_yet() -> None:
    assert str(outlook_at(NOON, batch("canceled", window=NIGHTS, deadline=NOON), "")) == ""


def test_a_batch_that_may_not_begin_yet_says_when() -> None:
    later = batch(not_before=NOON + timedelta(days=1), window=NIGHTS)
    assert outlook_at(NOON, later, "").waits == "begins Sun 2026-11-22 22:00 Europe/Berlin"
    at_night = batch(not_before=NOON + timedelta(hours=12), window=NIGHTS)
    assert outlook_at(NOON, at_night, "").waits == "begins Sun 2026-11-22 01:00 Europe/Berlin"
    assert outlook_at(NOON, batch(not_before=NOON + timedelta(days=1)), "").waits is not None


def test_a_batch_is_reported_before_it_is_late() -> None:
    due = batch(deadline=NOON + timedelta(minutes=59), window="00:00-24:00 UTC")
    assert outlook_at(NOON, due, "", 1.0).late == (
        "will be late: at 1 images/s it ends about Sat 2026-11-21 13:00 UTC, its deadline is Sat 2026-11-21 12:59 UTC"
    )
    assert outlook_at(NOON, due, "", 1.1).late is None
    assert outlook_at(NOON, due, "", None).late is None
    assert outlook_at(NOON + timedelta(hours=1), due, "").late == "late: its deadline was Sat 2026-11-21 12:59 UTC"
    assert str(outlook_at(NOON + timedelta(hours=1), batch(num_done=3600, deadline=NOON), "")) == ""


def test_the_hours_in_which_it_may_not_be_rendered_are_counted() -> None:
    """3600 images in nights of 8 hours, 200 an hour: two nights, and two hours of the third."""
    due = batch(window="22:00-06:00 UTC", deadline=NOON + timedelta(days=2, hours=11))
    late = outlook_at(NOON, due, "", 200 / 3600).late
    assert late is not None
    assert "it ends about Tue 2026-11-24 00:00 UTC" in late


def test_a_batch_that_may_not_begin_before_its_deadline_will_be_late_whatever_the_rate() -> None:
    nights, due = "22:00-06:00 UTC", NOON + timedelta(hours=8)
    shut = (
        "will be late: nothing of it begins before Sat 2026-11-21 22:00 UTC, its deadline is Sat 2026-11-21 20:00 UTC"
    )
    assert outlook_at(NOON, batch(window=nights, deadline=due), "").late == shut
    assert outlook_at(NOON, batch(window=nights, deadline=due), "", 100.0).late == shut
    assert outlook_at(NOON, batch("paused", window=nights, deadline=due), "").late == shut
    assert outlook_at(NOON, batch(window=nights, deadline=NOON + timedelta(hours=10)), "").late is not None
    assert outlook_at(NOON, batch(window=nights, deadline=NOON + timedelta(hours=10, minutes=1)), "").late is None
    begun = outlook_at(NOON, batch(num_done=3, window=nights, deadline=due), "").late
    assert begun == shut.replace("nothing of it", "no more of it")
    later = batch(not_before=NOON + timedelta(days=1), deadline=due)
    assert "nothing of it begins before" in str(outlook_at(NOON, later, "").late)
    never = batch(window="mon 10:00-11:00 UTC", deadline=due)
    assert "nothing of it ever begins" in str(outlook_at(NOON, never, "tue 10:00-11:00 UTC").late)


def test_what_renders_already_when_a_window_closes_may_still_be_in_time() -> None:
    last = replace(batch(num_done=3592, window="22:00-06:00 UTC", deadline=NOON + timedelta(hours=1)), num_pending=0)
    assert outlook_at(NOON, replace(last, num_running=8), "", 0.01).late is None
    assert outlook_at(NOON, replace(last, num_queued=8), "").late is not None


def test_without_a_rate_of_its_own_a_batch_is_judged_by_the_pace_of_its_pair() -> None:
    due = batch(deadline=NOON + timedelta(hours=1))
    assert outlook_at(NOON, due, "", None, Prospect(per_second=1.0)).late is None
    assert outlook_at(NOON, due, "", None, Prospect(per_second=0.5)).late == (
        "will be late: at the 0.5 images/s of its pair's last packs it ends about "
        f"{local_time(NOON + timedelta(hours=2), [])}, its deadline is {local_time(NOON + timedelta(hours=1), [])}"
    )
    behind = outlook_at(NOON, due, "", None, Prospect(per_second=2.0, seconds_before=3000)).late
    assert behind is not None
    assert behind.startswith(
        "will be late: after those of a higher priority, at the 2 images/s of its pair's last packs"
    )
    assert outlook_at(NOON, due, "", 1.0, Prospect(per_second=0.5)).late is None, "its own rate is better"
    assert outlook_at(NOON, batch("paused", deadline=due.deadline), "", None, Prospect(per_second=0.5)).late is None


def test_a_batch_whose_packs_would_not_end_in_its_hours_says_so() -> None:
    night, half_past = batch(window="22:00-06:00 UTC"), NOON + timedelta(hours=17, minutes=30)
    assert outlook_at(half_past, night, "", None, Prospect(1_700)).waits is None
    assert outlook_at(half_past, night, "", None, Prospect(1_800)).waits == (
        "no more begins before its window closes, for a pack takes about 0:30:00;"
        " it opens again Sun 2026-11-22 22:00 UTC"
    )
    assert outlook_at(NOON, night, "", None, Prospect(36_000)).waits == (
        "its window opens Sat 2026-11-21 22:00 UTC; a pack takes about 10:00:00 and ends after it closes"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-21T12:00Z", NOON),
        ("2026-11-21T13:00+01:00", NOON),
        ("2026-11-21 13:00 Europe/Berlin", NOON),
        (" 2026-11-21T12:00:00+00:00 ", NOON),
        ("2027-03-28 02:30 Europe/Berlin", datetime(2027, 3, 28, 1, 0, tzinfo=UTC)),  # jumped over: as windows have it
        ("2026-10-25 02:30 Europe/Berlin", datetime(2026, 10, 25, 0, 30, tzinfo=UTC)),  # shown twice: the first
    ],
)
def test_an_instant_carries_its_zone(text: str, expected: datetime) -> None:
    assert instant(text) == expected


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("22-6 UTC", None, None), "--window '22-6 UTC': '22-6' is no span of hours"),
        ((None, "2026-11-21 13:00", None), "--not-before '2026-11-21 13:00': names no time zone"),
        ((None, "tomorrow", None), "is no time"),
        ((None, "2026-11-21 13:00 Mars/Olympus", None), "there is no time zone 'Mars/Olympus'"),
        ((None, None, "0001-01-01T00:00+14:00"), "--deadline"),
        ((None, "2026-11-21T13:00Z", "2026-11-21T13:00Z"), "is not after --not-before"),
    ],
)
def test_what_is_no_time_is_refused(options: tuple[str | None, str | None, str | None], reason: str) -> None:
    with pytest.raises(InputError) as raised:
        Timing.parse(*options)
    assert reason in str(raised.value)
