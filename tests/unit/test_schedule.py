"""Schedules as pure policy: what is due after any downtime, and what is ordered at a firing."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from schemas.errors import InputError
from schemas.placeholders import filled, firing_seed, placeholder_values
from schemas.schedule import GRACE, Missed, Schedule, order_of_firing
from schemas.submit_order import Origin, SubmitOrder
from schemas.wall_clock import next_shown

BERLIN = ZoneInfo("Europe/Berlin")
MONDAY = datetime(2026, 11, 23, 21, 0, tzinfo=UTC)  # 22:00 in Berlin
NIGHTLY = Schedule(1, "nightly", "0 22 * * *", "Europe/Berlin", {}, Missed.ONCE, False, MONDAY, MONDAY)
ORDER = SubmitOrder(manifest="lists/{date}.tsv", name="{date} {time} {other}", fields={"seed": "{seed}"})


def test_in_time_both_ways_to_miss_are_the_same() -> None:
    for missed in Missed:
        due = replace(NIGHTLY, missed=missed).due(MONDAY + GRACE)
        assert (due.due_at, due.skipped, due.next_due_at) == (MONDAY, False, MONDAY + timedelta(days=1))


@pytest.mark.parametrize(("missed", "skipped"), [(Missed.ONCE, False), (Missed.SKIP, True)])
def test_after_three_days_the_last_missed_time_fires_once_or_is_skipped(missed: Missed, skipped: bool) -> None:
    due = replace(NIGHTLY, missed=missed).due(MONDAY + timedelta(days=3, hours=10))
    assert due.due_at == MONDAY + timedelta(days=3)
    assert due.skipped == skipped
    assert due.next_due_at == MONDAY + timedelta(days=4)


def test_a_schedule_that_skips_fires_the_time_that_it_is_not_late_for() -> None:
    due = replace(NIGHTLY, missed=Missed.SKIP).due(MONDAY + timedelta(days=3, minutes=5))
    assert (due.due_at, due.skipped) == (MONDAY + timedelta(days=3), False)


def test_a_firing_fills_in_its_date_time_and_seed_and_leaves_other_braces() -> None:
    order = order_of_firing("nightly", ORDER, MONDAY, BERLIN)
    seed = firing_seed("nightly", MONDAY)
    assert (order.manifest, order.name) == ("lists/2026-11-23.tsv", "2026-11-23 2200 {other}")
    assert (order.fields, order.base_seed) == ({"seed": str(seed)}, seed)
    assert filled("a {red|blue} {Date} {{date}}", order.placeholders) == "a {red|blue} {Date} {2026-11-23}"


def test_the_date_is_that_of_the_schedules_zone() -> None:
    moment = datetime(2026, 11, 23, 23, 30, tzinfo=UTC)
    assert placeholder_values("nightly", moment, BERLIN)["date"] == "2026-11-24"
    assert placeholder_values("nightly", moment, ZoneInfo("America/New_York"))["date"] == "2026-11-23"


def test_each_firing_has_a_seed_of_its_own_that_can_be_computed_again() -> None:
    nights = [MONDAY + timedelta(days=n) for n in range(7)]
    seeds = [firing_seed(name, night) for name in ("nightly", "weekly") for night in nights]
    assert len(set(seeds)) == 14
    assert firing_seed("nightly", MONDAY.astimezone(BERLIN)) == seeds[0] == 18028846947190433693


def test_a_base_seed_that_is_given_stays() -> None:
    assert order_of_firing("nightly", ORDER.model_copy(update={"base_seed": 7}), MONDAY, BERLIN).base_seed == 7


def test_times_of_the_clock_are_the_first_after_the_firing() -> None:
    order = ORDER.model_copy(update={"not_before": "23:30", "deadline": "mon 07:00"})
    made = order_of_firing("nightly", order, MONDAY, BERLIN)
    assert made.not_before == "2026-11-23T22:30:00+00:00"
    assert made.deadline == "2026-11-30T06:00:00+00:00"


@pytest.mark.parametrize("text", ["7", "25:00", "07:60", "someday 07:00", "2026-11-23 07:00", ""])
def test_what_is_no_time_of_the_clock_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"--deadline .* is no time of the clock; such as 07:00"):
        order_of_firing("nightly", ORDER.model_copy(update={"deadline": text}), MONDAY, BERLIN)


def test_a_time_of_the_clock_that_a_night_leaves_out_is_the_moment_of_the_jump() -> None:
    jump = datetime(2026, 3, 29, 1, 0, tzinfo=UTC)
    assert next_shown("02:30", BERLIN, jump - timedelta(hours=3)) == jump
    assert next_shown("sun 02:30", BERLIN, jump) == datetime(2026, 4, 5, 0, 30, tzinfo=UTC)


def test_an_order_is_the_same_after_the_ledger() -> None:
    order = SubmitOrder(manifest="a.tsv", fields={"width": "512"}, base_seed=2**64 - 1, weight=2, skip_invalid=True)
    assert SubmitOrder.from_json(json.loads(json.dumps(order.as_json()))) == order
    assert order.as_json()["base_seed"] == "18446744073709551615"  # no double could hold it


@pytest.mark.parametrize(
    "change", [{"version": 2}, {"extra": 1}, {"base_seed": "18446744073709551616"}, {"priority": 10}, {"limit": "3"}]
)
def test_an_order_of_another_version_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(InputError, match=f"of another version of Nightshift: {next(iter(change))} "):
        SubmitOrder.from_json({**ORDER.as_json(), **change})


def test_how_a_batch_came_to_be_can_be_stored_whatever_its_file_is_called() -> None:
    origin = Origin(order=SubmitOrder(manifest="a\udcff.tsv", name="n"), base_seed=1, due_at=MONDAY)
    kept = json.loads(json.dumps(origin.as_json()).encode())
    assert (kept["order"]["manifest"], kept["base_seed"]) == ("a\\udcff.tsv", "1")
