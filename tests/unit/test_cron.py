"""Cron lines through weeks of nights, and the nights on which clocks are set: by an hour, and by half of one."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.cron import CronLine
from schemas.errors import InputError

MINUTE = timedelta(minutes=1)


def due(line: str, zone: str, start: str, end: str) -> list[str]:
    """When it is due between two days of the zone, as its clock shows it, with its offset."""
    cron, clock = CronLine.parse(line, zone), ZoneInfo(zone)
    moment, until = (datetime.fromisoformat(day).replace(tzinfo=clock).astimezone(UTC) for day in (start, end))
    found = times(cron, moment - timedelta(seconds=1), until)
    return [f"{moment.astimezone(clock):%a %d %H:%M %z}" for moment in found]


def times(cron: CronLine, after: datetime, until: datetime) -> Iterator[datetime]:
    while (after := cron.next_after(after)) < until:
        yield after


def test_a_line_is_due_in_each_night_that_it_names() -> None:
    assert due("0 22 * * 1-5", "Europe/Berlin", "2026-11-20", "2026-11-30") == [
        *("Fri 20 22:00 +0100", "Mon 23 22:00 +0100", "Tue 24 22:00 +0100", "Wed 25 22:00 +0100"),
        *("Thu 26 22:00 +0100", "Fri 27 22:00 +0100"),
    ]


@pytest.mark.parametrize(
    ("zone", "start", "jump"),
    [
        ("Europe/Berlin", "2026-03-28", "Sun 29 03:00 +0200"),
        ("America/New_York", "2026-03-07", "Sun 08 03:00 -0400"),
        ("Australia/Lord_Howe", "2026-10-03", "Sun 04 02:30 +1100"),
    ],
)
def test_a_time_that_the_clock_jumps_over_is_due_once_at_the_moment_of_the_jump(
    zone: str, start: str, jump: str
) -> None:
    end = f"{datetime.fromisoformat(start) + timedelta(days=3):%Y-%m-%d}"
    found = due("15,20 2 * * *", zone, start, end)
    assert len(found) == 5
    assert found[2] == jump


@pytest.mark.parametrize(
    ("zone", "start", "line", "first"),
    [
        ("Europe/Berlin", "2026-10-24", "30 2 * * *", "Sun 25 02:30 +0200"),
        ("America/New_York", "2026-10-31", "30 1 * * *", "Sun 01 01:30 -0400"),
        ("Australia/Lord_Howe", "2026-04-04", "45 1 * * *", "Sun 05 01:45 +1100"),
    ],
)
def test_a_time_that_the_clock_shows_twice_is_due_once_at_the_first(
    zone: str, start: str, line: str, first: str
) -> None:
    end = f"{datetime.fromisoformat(start) + timedelta(days=3):%Y-%m-%d}"
    found = due(line, zone, start, end)
    assert len(found) == 3
    assert found[1] == first


def test_a_line_for_every_hour_is_due_in_the_hour_that_comes_twice_and_not_in_one_that_is_left_out() -> None:
    assert len(due("0 * * * *", "Europe/Berlin", "2026-10-25", "2026-10-26")) == 25
    assert len(due("0 * * * *", "Europe/Berlin", "2026-03-29", "2026-03-30")) == 23
    autumn = due("*/30 2 * * *", "Europe/Berlin", "2026-10-25", "2026-10-26")
    assert autumn == ["Sun 25 02:00 +0200", "Sun 25 02:30 +0200", "Sun 25 02:00 +0100", "Sun 25 02:30 +0100"]


@pytest.mark.parametrize("day", ["2026-04-05", "2026-10-04"])
def test_a_clock_that_is_set_by_half_an_hour_loses_no_time_of_the_hours_after(day: str) -> None:
    end = f"{datetime.fromisoformat(day) + timedelta(days=1):%Y-%m-%d}"
    found = due("*/15 5 * * *", "Australia/Lord_Howe", day, end)
    assert [time.split()[2] for time in found] == ["05:00", "05:15", "05:30", "05:45"]


@settings(max_examples=20)
@given(
    st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo", "Pacific/Apia"]),
    st.sampled_from(["*/7 * * * *", "13 * * * *", "*/20 0-3 * * *", "* 1,2 * * 0", "0 */2 * * 6"]),
    st.sampled_from([datetime(2026, 3, 28), datetime(2026, 10, 24), datetime(2026, 4, 4), datetime(2026, 10, 3)]),
    st.integers(0, 1440),
)
def test_a_line_that_begins_with_a_star_is_due_whenever_the_clock_shows_a_fitting_time(
    zone: str, line: str, day: datetime, minutes: int
) -> None:
    """In other words: those minutes, of all that there are, at which the clock shows what fits."""
    cron, clock = CronLine.parse(line, zone), ZoneInfo(zone)
    start = day.replace(tzinfo=UTC) + timedelta(minutes=minutes)
    end = start + timedelta(days=2)
    fitting = set(times(CronLine.parse(line, "UTC"), start - timedelta(days=1), end + timedelta(days=1)))
    minutes = (start + n * MINUTE for n in range(1, 2 * 1440))
    expected = [moment for moment in minutes if moment.astimezone(clock).replace(tzinfo=UTC) in fitting]
    assert list(times(cron, start, end)) == expected


def test_the_latest_time_is_found_without_counting_through_a_year() -> None:
    every_minute, yearly = CronLine.parse("* * * * *", "UTC"), CronLine.parse("0 0 29 2 *", "UTC")
    now = datetime(2026, 11, 21, 22, 0, 30, tzinfo=UTC)
    assert every_minute.latest(now - timedelta(days=20_000), now) == datetime(2026, 11, 21, 22, 0, tzinfo=UTC)
    assert yearly.latest(now - timedelta(days=2_000), now) == datetime(2024, 2, 29, tzinfo=UTC)
    assert yearly.latest(now - timedelta(days=400), now) is None


@pytest.mark.parametrize(
    ("line", "zone", "sentence"),
    [
        ("0 0 30 2 *", "UTC", "'0 0 30 2 *': bad day-of-month"),
        ("0 0 31 4,6 mon#1", "UTC", None),
        ("0 25 * * *", "UTC", "'0 25 * * *': bad hour"),
        ("0 0 1 1", "UTC", "'0 0 1 1' is no cron line; it has five fields: minute, hour"),
        ("0 0 0 1 1 *", "UTC", "is no cron line"),
        ("@daily", "UTC", "is no cron line"),
        ("", "UTC", "is no cron line"),
        ("0 22 * * *", "Europe/Berlim", "--tz: there is no time zone 'Europe/Berlim'"),
        ("0 22 * * *", "../etc/passwd", "--tz: there is no time zone"),
        (f"{'9' * 5000} 1 * * *", "UTC", "is no cron line"),
        ("0\x1b[31m 1 * * *", "UTC", r"0\x1b[31m"),
    ],
)
def test_what_is_no_line_or_never_comes_is_said_in_a_sentence(line: str, zone: str, sentence: str | None) -> None:
    if sentence is None:  # a day of the month or of the week, as in a crontab
        assert CronLine.parse(line, zone).next_after(datetime(2026, 1, 1, tzinfo=UTC)).month == 4
        return
    with pytest.raises(InputError) as refused:
        CronLine.parse(line, zone)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


@given(st.text("0123456789*/,-#LWMONx ²ß", max_size=40))
def test_whatever_stands_for_a_line_is_read_or_refused(text: str) -> None:
    try:
        line = CronLine.parse(text, "Europe/Berlin")
    except InputError:
        return
    start = datetime(2026, 1, 1, tzinfo=UTC)
    assert start < line.next_after(start)
