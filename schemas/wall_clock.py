"""A zone's clock: which instant it shows when, and what it does where it is put forward or back. Pure."""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_CLOCK_TIME: Final = re.compile(r"(?:(?P<day>[a-z]{3}) )?(?P<hour>[01]?\d|2[0-3]):(?P<minute>[0-5]\d)")


def zone_named(name: str) -> ZoneInfo:
    """Raises ValueError with a sentence for a name that is no zone's."""
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError):  # not found; a folder; a path that leaves the zones
        raise ValueError(f"there is no time zone {name!r}; such as Europe/Berlin or UTC") from None


@lru_cache(4096)
def shown_at(wall: datetime, zone: ZoneInfo) -> datetime:
    """The first instant (UTC) at which the zone's clock shows this time of this day, or has jumped over it."""
    early, late = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    return early if late >= early else change_of_offset(late, early, zone)  # shown once, or twice; jumped over


def offset_at(moment: datetime, zone: ZoneInfo) -> timedelta:
    """By how much the zone's clock is ahead of UTC."""
    return moment.astimezone(zone).utcoffset() or timedelta()


def wall_at(moment: datetime, zone: ZoneInfo) -> datetime:
    """What the zone's clock shows: a time without a zone."""
    return moment.astimezone(zone).replace(tzinfo=None)


def change_of_offset(early: datetime, late: datetime, zone: ZoneInfo) -> datetime:
    """The first instant, to the second, at which the clock has been put forward or back between two times (UTC)
    whose offsets differ."""
    offset = offset_at(early, zone)
    while late - early > timedelta(seconds=1):
        middle = early + (late - early) / 2
        early, late = (middle, late) if offset_at(middle, zone) == offset else (early, middle)
    return late.replace(microsecond=0)


def next_shown(clock_time: str, zone: ZoneInfo, after: datetime) -> datetime:
    """The first instant (UTC) after ``after`` at which the zone's clock shows ``07:00``, or ``mon 07:00``.

    Raises:
        ValueError: with a sentence, for what is no such time.
    """
    match = _CLOCK_TIME.fullmatch(clock_time.strip().lower())
    if match is None or match["day"] not in (None, *WEEKDAYS):
        raise ValueError("is no time of the clock; such as 07:00 or 'mon 07:00'")
    today = wall_at(after, zone).replace(hour=int(match["hour"]), minute=int(match["minute"]), second=0, microsecond=0)
    days = [today + timedelta(days=n) for n in range(9)]
    walls = [day for day in days if match["day"] in (None, WEEKDAYS[day.weekday()])]
    return next(moment for wall in walls if (moment := shown_at(wall, zone)) > after)
