"""Windows: which hours they are, through whole weeks and both nights on which the clock is set."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from schemas.errors import SettingsError
from schemas.windows import Hours, Window, next_opening, open_time, open_until

BERLIN = ZoneInfo("Europe/Berlin")
NIGHTS = Window.parse("22:00-06:00 Europe/Berlin")


def berlin(text: str, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold).astimezone(UTC)


def open_hours(window: Window, start: datetime, days: int) -> list[datetime]:
    """Of all hours, those at whose beginning it is open."""
    hours = (start + timedelta(hours=n) for n in range(days * 24))
    return [hour for hour in hours if window.open_hours(hour)]


@pytest.mark.parametrize(
    ("now", "is_open"),
    [("2026-11-21 21:59", False), ("2026-11-21 22:00", True), ("2026-11-22 05:59", True), ("2026-11-22 06:00", False)],
)
def test_a_window_across_midnight_is_open_from_evening_to_morning(now: str, is_open: bool) -> None:
    assert (NIGHTS.open_hours(berlin(now)) is not None) == is_open


def test_the_open_hours_say_when_they_close_and_the_next_ones_when_they_open() -> None:
    assert NIGHTS.open_hours(berlin("2026-11-22 01:00")) == Hours(
        berlin("2026-11-21 22:00"), berlin("2026-11-22 06:00")
    )
    assert NIGHTS.next_hours(berlin("2026-11-22 12:00")).opens == berlin("2026-11-22 22:00")


@pytest.mark.parametrize(("day", "hours"), [("2026-03-28", 7), ("2026-10-24", 9), ("2026-06-01", 8)])
def test_a_night_is_as_long_as_the_clock_makes_it(day: str, hours: int) -> None:
    night = NIGHTS.next_hours(berlin(f"{day} 12:00"))
    assert night.closes - night.opens == timedelta(hours=hours)


def test_a_time_that_the_clock_jumps_over_is_the_moment_of_the_jump() -> None:
    jump = datetime(2026, 3, 29, 1, 0, tzinfo=UTC)
    assert Window.parse("02:30-06:00 Europe/Berlin").next_hours(jump - timedelta(hours=1)).opens == jump
    assert Window.parse("22:00-02:30 Europe/Berlin").next_hours(jump - timedelta(hours=1)).closes == jump
    assert Window.parse("02:10-02:50 Europe/Berlin").open_hours(jump) is None


def test_a_time_that_the_clock_shows_twice_is_the_first_of_the_two() -> None:
    evening = berlin("2026-10-24 20:00")
    assert Window.parse("22:00-02:30 Europe/Berlin").next_hours(evening).closes == berlin("2026-10-25 02:30")
    assert Window.parse("02:30-03:30 Europe/Berlin").next_hours(evening) == Hours(
        berlin("2026-10-25 02:30"), berlin("2026-10-25 03:30")
    )


def test_weekdays_are_those_on_which_the_span_begins() -> None:
    fridays = Window.parse("Fri 22:00-06:00 Europe/Berlin")
    assert fridays.open_hours(berlin("2026-11-21 05:00"))  # a Saturday morning
    assert fridays.open_hours(berlin("2026-11-21 23:00")) is None
    assert fridays.next_hours(berlin("2026-11-21 07:00")).opens == berlin("2026-11-27 22:00")


def test_spans_that_touch_are_one_night() -> None:
    weekend = Window.parse("mon-fri 22:00-06:00, sat,sun 00:00-24:00 Europe/Berlin")
    hours = weekend.next_hours(berlin("2026-11-20 12:00"))
    assert hours == Hours(berlin("2026-11-20 22:00"), berlin("2026-11-23 00:00"))
    assert weekend.open_hours(berlin("2026-11-23 00:00")) is None


def test_weekdays_may_go_over_the_end_of_the_week() -> None:
    assert Window.parse("sat-mon 10:00-11:00 UTC").spans[0].weekdays == {5, 6, 0}


def test_a_whole_year_of_nights_is_open_for_eight_hours_each_but_for_two() -> None:
    hours = open_hours(NIGHTS, berlin("2026-01-01 12:00"), 365)
    assert len(hours) == 365 * 8  # one hour less in spring, one more in autumn
    local = {hour.astimezone(BERLIN).hour for hour in hours}
    assert local == {22, 23, 0, 1, 2, 3, 4, 5}


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia", "UTC"])
def test_every_zone_opens_and_closes_once_a_day(zone: str) -> None:
    window, now, nights = Window.parse(f"23:30-04:15 {zone}"), datetime(2026, 1, 1, tzinfo=UTC), 0
    while now < datetime(2027, 1, 1, tzinfo=UTC):
        now = window.next_hours(now).closes
        nights += 1
    assert nights in (365, 366)


def test_two_windows_are_open_where_both_are() -> None:
    farm, batch = Window.parse("20:00-08:00 UTC"), Window.parse("06:00-22:00 UTC")
    noon, morning = (datetime(2026, 11, 21, hour, tzinfo=UTC) for hour in (12, 7))
    assert open_until([farm, batch], noon) is None
    assert open_until([farm, batch], morning) == datetime(2026, 11, 21, 8, tzinfo=UTC)
    assert next_opening([farm, batch], noon) == datetime(2026, 11, 21, 20, tzinfo=UTC)
    assert next_opening([farm, batch], morning) == morning


@pytest.mark.parametrize(
    ("since", "now", "hours"),
    [
        ("2026-11-21 10:00", "2026-11-21 21:00", 0),
        ("2026-11-21 10:00", "2026-11-21 23:30", 1.5),
        ("2026-11-21 23:00", "2026-11-21 23:30", 0.5),
        ("2026-11-21 10:00", "2026-11-23 23:00", 17),
        ("2026-11-21 23:30", "2026-11-21 23:00", 0),
        ("2026-03-28 10:00", "2026-03-30 10:00", 15),  # of a night in which the clock is set
    ],
)
def test_of_the_hours_that_passed_those_count_in_which_it_was_open(since: str, now: str, hours: float) -> None:
    assert open_time([NIGHTS], berlin(since), berlin(now)) == timedelta(hours=hours)


def test_without_windows_all_hours_count_and_with_two_that_never_meet_none() -> None:
    days = Window.parse("06:00-22:00 Europe/Berlin")
    assert open_time([], berlin("2026-01-01 00:00"), berlin("2028-01-01 00:00")) == timedelta(days=730)
    assert open_time([NIGHTS, days], berlin("2026-01-01 00:00"), berlin("2026-02-01 00:00")) == timedelta(0)


def test_without_windows_it_is_always_open_and_two_that_never_meet_never_are() -> None:
    now = datetime(2026, 11, 21, tzinfo=UTC)
    assert open_until([], now) is not None
    assert next_opening([], now) == now
    assert next_opening([Window.parse("mon 10:00-11:00 UTC"), Window.parse("tue 10:00-11:00 UTC")], now) is None


def test_all_day_every_day_is_open_for_ever() -> None:
    always, now = Window.parse("00:00-24:00 Europe/Berlin"), datetime(2026, 10, 24, 21, tzinfo=UTC)
    hours = always.open_hours(now)
    assert hours is not None
    assert hours.closes - now > timedelta(days=7)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("22:00-06:00", "names no time zone"),
        ("", "names no time zone"),
        ("22:00-06:00 Berlin/Europe", "there is no time zone 'Berlin/Europe'"),
        ("22:00-06:00 ../../etc/passwd", "there is no time zone"),
        ("22:00-06:00 Europe", "there is no time zone 'Europe'"),
        ("10pm-6am UTC", "is no span of hours"),
        ("25:00-06:00 UTC", "there is no time 25:00"),
        ("22:60-06:00 UTC", "there is no time 22:60"),
        ("24:00-06:00 UTC", "holds no time"),
        ("06:00-06:00 UTC", "holds no time; all day is 00:00-24:00"),
        ("mon-fry 22:00-06:00 UTC", "'mon-fry' is no weekday"),
        ("mon,,tue 22:00-06:00 UTC", "'' is no weekday"),
    ],
)
def test_what_is_no_window_is_refused_with_what_would_be_one(text: str, reason: str) -> None:
    with pytest.raises(SettingsError, match="window") as raised:
        Window.parse(text)
    assert reason in str(raised.value)
