"""The hours in which a batch, or a farm, may render: ``22:00-06:00 Europe/Berlin``. Pure policy: the time is given.

Local times become instants by the zone's rules, so a night is 7, 8 or 9 hours long. A time that the clock jumps over in
spring is the moment of the jump; one that it shows twice in autumn is the first of the two.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import takewhile
from typing import Final, Self
from zoneinfo import ZoneInfo

from schemas.errors import SettingsError
from schemas.wall_clock import WEEKDAYS, shown_at, zone_named

_SPAN: Final = re.compile(r"(?:(?P<days>[a-z][a-z,-]*) )?(?P<start>\d\d:\d\d) ?- ?(?P<end>\d\d:\d\d)")
_ALL_DAY: Final = timedelta(days=1)
#: A window that opens on one day of the week opens within so many days, whatever the time of day.
_WEEK: Final = 8
_EXAMPLE: Final = "such as '22:00-06:00 Europe/Berlin' or 'mon-fri 22:00-06:00, sat-sun 00:00-24:00 Europe/Berlin'"


@dataclass(frozen=True)
class Hours:
    """From ``opens`` to ``closes``, both UTC; the second is outside."""

    opens: datetime
    closes: datetime


@dataclass(frozen=True)
class _Span:
    """Begins on these weekdays (0: Monday). ``start`` and ``end`` since midnight; an end not after it is tomorrow's."""

    weekdays: frozenset[int]
    start: timedelta
    end: timedelta

    def hours(self, day: date, zone: ZoneInfo) -> Hours:
        end = self.end if self.end > self.start else self.end + _ALL_DAY
        midnight = datetime.combine(day, time())
        return Hours(shown_at(midnight + self.start, zone), shown_at(midnight + end, zone))


@dataclass(frozen=True)
class Window:
    """One or more spans of hours in one time zone. ``text``: as it was written."""

    text: str
    zone: ZoneInfo
    spans: tuple[_Span, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads ``[DAYS ]HH:MM-HH:MM[, ...] ZONE``.

        Raises:
            SettingsError: it is not of that form, or there is no such time or zone.
        """
        spans, _, zone = text.strip().rpartition(" ")
        if not spans or ":" in zone:
            raise SettingsError(f"window {text!r} names no time zone; write it {_EXAMPLE}")
        try:
            return cls(text, zone_named(zone), tuple(_span(part.strip()) for part in _parts(spans)))
        except ValueError as error:
            raise SettingsError(f"window {text!r}: {error}") from None

    def open_hours(self, now: datetime) -> Hours | None:
        """The hours that are open at ``now``; None where it is closed."""
        return next((hours for hours in self._around(now) if hours.opens <= now < hours.closes), None)

    def next_hours(self, now: datetime) -> Hours:
        """The first hours that end after ``now``: the open ones, or the next to open."""
        return next(hours for hours in self._around(now) if hours.closes > now)

    def last_opening(self, now: datetime) -> datetime:
        """When it last opened: the open hours, or the last ones before ``now``. Hours that have been open for more than
        a week count as opened then."""
        return max(hours.opens for hours in self._around(now, first=-_WEEK) if hours.opens <= now)

    def _around(self, now: datetime, first: int = -2) -> tuple[Hours, ...]:
        """The hours of the days about ``now``, in order, those that touch made one."""
        return _hours_about(self, now.astimezone(self.zone).date(), first)


@lru_cache(maxsize=256)
def windows_of(*texts: str | None) -> tuple[Window, ...]:
    """Those that there are, of a batch and of the farm. Both have to be open.

    Raises:
        SettingsError: one of them is no window.
    """
    return tuple(Window.parse(text) for text in texts if text)


@lru_cache(maxsize=256)
def _hours_about(window: Window, today: date, first: int) -> tuple[Hours, ...]:
    """Remembered: of a thousand batches that are looked at each second most have the same window."""
    days = [today + timedelta(days=n) for n in range(first, _WEEK + 1)]
    return tuple(
        _joined(span.hours(day, window.zone) for day in days for span in window.spans if day.weekday() in span.weekdays)
    )


def open_until(windows: Iterable[Window], now: datetime) -> datetime | None:
    """When the first of the windows closes, if all of them are open at ``now``; None where one is closed.

    Without windows it is always open: the end of time.
    """
    hours = open_together(windows, now)
    return None if hours is None else hours.closes


def open_together(windows: Iterable[Window], now: datetime) -> Hours | None:
    """The hours about ``now`` in which all of the windows are open; None where one is closed. Without windows: always.

    Hours that began more than two days ago are said to have begun then.
    """
    opens, closes = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    for window in windows:
        hours = window.open_hours(now)
        if hours is None:
            return None
        opens, closes = max(opens, hours.opens), min(closes, hours.closes)
    return Hours(opens, closes)


def next_opening(windows: Iterable[Window], now: datetime) -> datetime | None:
    """When all of the windows are open for the first time from ``now`` on; None where they never are together."""
    windows, end = list(windows), now + timedelta(days=2 * _WEEK)
    while now < end:
        opens = max((window.next_hours(now).opens for window in windows), default=now)
        if opens <= now:
            return now
        now = opens
    return None


def open_spans(windows: Iterable[Window], now: datetime) -> Iterator[Hours]:
    """When all of the windows are open together, from ``now`` on and for a year; without windows, always."""
    windows, last = list(windows), now + timedelta(days=366)
    while now < last and (opens := next_opening(windows, now)) is not None:
        closes = open_until(windows, opens)
        assert closes is not None, "they are open by then"
        yield Hours(opens, closes)
        now = closes


def open_time(windows: Iterable[Window], since: datetime, now: datetime) -> timedelta:
    """For how long all of the windows have been open together; hours more than a year after ``since`` do not count."""
    passed = takewhile(lambda hours: hours.opens < now, open_spans(windows, since))
    return sum((min(hours.closes, now) - hours.opens for hours in passed), timedelta())


def finishing(windows: Iterable[Window], now: datetime, work: timedelta) -> datetime | None:
    """When so much work is done that goes on only while all of the windows are open; None where it takes a year."""
    for hours in open_spans(windows, now):
        if work <= hours.closes - hours.opens:
            return hours.opens + work
        work -= hours.closes - hours.opens
    return None


def _parts(spans: str) -> list[str]:
    """``mon,wed 22:00-06:00, sat 00:00-24:00`` at the commas that follow a time."""
    return re.split(r"(?<=\d),", spans.lower())


def _span(part: str) -> _Span:
    match = _SPAN.fullmatch(part)
    if match is None:
        raise ValueError(f"{part!r} is no span of hours; write it {_EXAMPLE}")
    start, end = _since_midnight(match["start"]), _since_midnight(match["end"])
    if start in (end, _ALL_DAY):
        raise ValueError(f"{part!r} holds no time; all day is 00:00-24:00")
    return _Span(_weekdays(match["days"] or "mon-sun"), start, end)


def _since_midnight(clock: str) -> timedelta:
    hours, minutes = map(int, clock.split(":"))
    since = timedelta(hours=hours, minutes=minutes)
    if minutes > 59 or since > _ALL_DAY:
        raise ValueError(f"there is no time {clock}; times go from 00:00 to 24:00")
    return since


def _weekdays(days: str) -> frozenset[int]:
    found: set[int] = set()
    for part in days.split(","):
        first, _, last = part.partition("-")
        if first not in WEEKDAYS or (last or first) not in WEEKDAYS:
            raise ValueError(f"{part!r} is no weekday; they are {', '.join(WEEKDAYS)}")
        start, end = WEEKDAYS.index(first), WEEKDAYS.index(last or first)
        found |= {(start + n) % 7 for n in range((end - start) % 7 + 1)}
    return frozenset(found)


def _joined(hours: Iterable[Hours]) -> Iterator[Hours]:
    """In order; those that overlap or touch are one."""
    last: Hours | None = None
    for one in sorted(hours, key=lambda one: one.opens):
        if last is not None and one.opens <= last.closes:
            last = Hours(last.opens, max(last.closes, one.closes))
            continue
        if last is not None:
            yield last
        last = one
    if last is not None:
        yield last
