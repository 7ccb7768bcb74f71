"""Cron lines in a time zone: when a schedule is due. Pure: instants are given, and all of them are UTC.

cronsim reads the line and counts on a clock without a zone; what zones' clocks do is done here, as Debian's cron does.
A line that names its hours (``30 2 * * *``) is due once each time: where the clock jumps over the time, at the moment
of the jump; where it shows the time twice, at the first of the two. A line whose minutes or hours begin with a star
is due whenever the clock shows a fitting time, so the hour that comes twice has it twice, and one jumped over not.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Final, Self
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from schemas.errors import InputError
from schemas.printable import printable, shown
from schemas.wall_clock import change_of_offset, offset_at, shown_at, wall_at, zone_named

_MAX_CHARACTERS: Final = 200
_FORM: Final = "minute, hour, day of month, month, day of week, such as '0 22 * * 1-5' or '30 6,18 * * *'"
_MONDAY: Final = datetime(2001, 1, 1)
_SECOND: Final = timedelta(seconds=1)
#: The latest time is looked for in the last hour first, so that a line for every minute is not counted through a year.
_SPANS: Final = tuple(timedelta(hours=hours) for hours in (1, 24, 24 * 8, 24 * 32, 24 * 367))


@dataclass(frozen=True)
class CronLine:
    """``text``: as it was written. Two are equal if they were written alike."""

    text: str
    zone: ZoneInfo

    @classmethod
    def parse(cls, text: str, zone: str) -> Self:
        """Reads five fields and the name of a zone.

        Raises:
            InputError: it is no cron line, it never comes, or there is no such zone.
        """
        if len(text) > _MAX_CHARACTERS or len(text.split()) != 5:
            raise InputError(f"--cron {shown(text)} is no cron line; it has five fields: {_FORM}")
        try:
            next(CronSim(text, _MONDAY))
        except CronSimError as error:
            flaw = printable(str(error)).lower()
            raise InputError(f"--cron {shown(text)}: {flaw}; the fields are {_FORM}") from None
        except StopIteration:
            raise InputError(f"--cron {shown(text)} never comes; there is no such day") from None
        try:
            return cls(text, zone_named(zone))
        except ValueError as error:
            raise InputError(f"--tz: {error}") from None

    def next_after(self, after: datetime) -> datetime:
        """The first time later than ``after`` at which it is due."""
        minute, hour = self.text.split()[:2]
        return self._whenever(after) if minute.startswith("*") or hour.startswith("*") else self._once(after)

    def next_times(self, after: datetime, num: int) -> list[datetime]:
        """The next so many."""
        return list(islice(self._times(after), num))

    def latest(self, after: datetime, until: datetime) -> datetime | None:
        """The last time later than ``after`` and not later than ``until``; None where there is none."""
        starts = [*(until - span for span in _SPANS if until - span > after), after]
        lasts = (last for start in starts for last in deque(self._times(start, until), maxlen=1))
        return next(lasts, None)

    def _times(self, after: datetime, until: datetime | None = None) -> Iterator[datetime]:
        while until is None or after <= until:
            after = self.next_after(after)
            if until is None or after <= until:
                yield after

    def _once(self, after: datetime) -> datetime:
        walls = CronSim(self.text, wall_at(after, self.zone))
        return next(moment for wall in walls if (moment := shown_at(wall, self.zone)) > after)

    def _whenever(self, after: datetime) -> datetime:
        """Counts on the clock as it goes now; from where it is put forward or back, on the clock as it goes then."""
        offset = offset_at(after, self.zone)
        while True:
            wall = next(CronSim(self.text, (after + offset).replace(tzinfo=None)))
            found = wall.replace(tzinfo=UTC) - offset
            if offset_at(found, self.zone) == offset:
                return found
            changed = change_of_offset(after, found, self.zone)
            after, offset = changed - _SECOND, offset_at(changed, self.zone)
