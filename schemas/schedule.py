"""A schedule: an order that is submitted again and again, by a cron line. Pure policy: the time is given."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cached_property
from typing import Any, Final
from zoneinfo import ZoneInfo

from schemas.cron import CronLine
from schemas.errors import InputError
from schemas.placeholders import filled, firing_seed, placeholder_values
from schemas.submit_order import SubmitOrder
from schemas.wall_clock import next_shown

#: A firing that is noticed no later than this is not a missed one: a dispatcher was started anew, a machine rebooted.
GRACE: Final = timedelta(minutes=10)
#: How long the submission of a firing waits after each time that something outside did not answer; then it has failed.
RETRY_SECONDS: Final = (60.0, 300.0, 900.0, 1800.0, 3600.0)


class Missed(StrEnum):
    ONCE = "once"  #: of the times that no dispatcher noticed, the last one fires
    SKIP = "skip"  #: what is noticed later than the grace does not fire


@dataclass(frozen=True)
class Due:
    """What is to be done about a schedule whose time has come. ``skipped``: it was missed, and does not fire."""

    due_at: datetime
    skipped: bool
    next_due_at: datetime


@dataclass(frozen=True)
class Schedule:
    """As the ledger has it. ``order``: a ``SubmitOrder`` as JSON. ``next_due_at``: UTC."""

    id: int
    name: str
    cron: str
    timezone: str
    order: Mapping[str, Any]
    missed: str
    paused: bool
    created_at: datetime
    next_due_at: datetime

    @cached_property
    def line(self) -> CronLine:
        """Raises InputError where this machine does not know the zone."""
        return CronLine.parse(self.cron, self.timezone)

    def due(self, now: datetime) -> Due:
        """To be asked when ``next_due_at`` has come: of the times since then, the last one is what counts."""
        due_at = self.line.latest(self.next_due_at, now) or self.next_due_at
        skipped = self.missed == Missed.SKIP and now - due_at > GRACE
        return Due(due_at, skipped, self.line.next_after(now))


def order_of_firing(schedule: str, order: SubmitOrder, due_at: datetime, zone: ZoneInfo) -> SubmitOrder:
    """What is submitted at this time: placeholders filled, times of the clock made instants, a base seed of its own.

    A base seed of its own, so that rows without a seed give other images each time, and not links to the first ones.

    Raises:
        InputError: not_before or deadline is no time of the clock.
    """
    values = placeholder_values(schedule, due_at, zone)
    return order.model_copy(
        update={
            "manifest": filled(order.manifest, values),
            "name": filled(order.name, values) if order.name is not None else None,
            "fields": {field: filled(value, values) for field, value in order.fields.items()},
            "base_seed": order.base_seed if order.base_seed is not None else firing_seed(schedule, due_at),
            "not_before": _instant("--not-before", order.not_before, zone, due_at),
            "deadline": _instant("--deadline", order.deadline, zone, due_at),
            "placeholders": values,
        }
    )


def _instant(option: str, clock_time: str | None, zone: ZoneInfo, after: datetime) -> str | None:
    try:
        return None if clock_time is None else next_shown(clock_time, zone, after).astimezone(UTC).isoformat()
    except ValueError as error:
        raise InputError(f"{option} {clock_time!r} {error}: the first one after each firing") from None
