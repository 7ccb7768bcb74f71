"""Why nothing of a batch begins just now, and whether it will be late."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from farm.database import Database
from farm.leases import ledger_time
from producer.questions.queries import BatchSummary
from producer.questions.rate import images_per_second
from producer.questions.twin_batches import twins_first
from schemas.states import BatchState
from schemas.windows import Window, finishing, next_opening

_TIME: Final = "%a %Y-%m-%d %H:%M"


@dataclass(frozen=True)
class Outlook:
    """``waits``: why nothing of it begins; ``late``: what to say of its deadline. None where all is well. ``ends``:
    when it is done at its rate of the last minutes; None where that is not known."""

    waits: str | None = None
    late: str | None = None
    ends: datetime | None = None

    def __str__(self) -> str:
        return "; ".join(filter(None, (self.waits, self.late)))

    def as_json(self) -> dict[str, str | None]:
        return {"waits": self.waits, "late": self.late, "ends": self.ends.isoformat() if self.ends else None}


GOES_ON: Final = Outlook()


def outlook(database: Database, batch: BatchSummary, farm_window: str) -> Outlook:
    """Of the batch now, by the ledger's clock and the images of the last minutes."""
    per_second = None if batch.ended else images_per_second(database, batch.id)
    first = twins_first(database, [batch], farm_window).get(batch.id)
    return outlook_at(ledger_time(database), batch, farm_window, per_second, first)


def outlook_at(now: datetime, batch: BatchSummary, farm_window: str, per_second: float | None = None,
               first: int | None = None) -> Outlook:  # fmt: skip
    """``per_second``: images a second of this batch lately; None where there were none. ``first``: the batch with the
    same images that goes before it (``twins_first``). A canceled batch has nothing ahead but the end of what renders;
    when a paused one ends nobody knows."""
    if batch.ended or batch.state == BatchState.CANCELED:
        return GOES_ON
    windows, per_second = _windows(batch, farm_window), None if batch.state == BatchState.PAUSED else per_second
    ends = _ends(batch, windows, now, per_second) if per_second else None
    late = None if batch.deadline is None else _late(batch.deadline, windows, now, per_second, ends)
    return Outlook(_waits(batch, windows, now) or _waits_for(first), late, ends)


def waits(now: datetime, batch: BatchSummary, farm_window: str, first: int | None = None) -> str | None:
    """Why nothing of the batch may begin at ``now``; None where it may, or has ended. ``first``: as above."""
    return None if batch.ended else _waits(batch, _windows(batch, farm_window), now) or _waits_for(first)


def _waits_for(first: int | None) -> str | None:
    return None if first is None else goes_first(first)


def goes_first(batch_id: int) -> str:
    """What is said of a batch that waits for this one (``producer.questions.twin_batches``)."""
    return f"batch {batch_id} has the same images and goes first"


def _windows(batch: BatchSummary, farm_window: str) -> list[Window]:
    return [Window.parse(text) for text in (batch.window, farm_window) if text]


def _waits(batch: BatchSummary, windows: Sequence[Window], now: datetime) -> str | None:
    if batch.state == BatchState.PAUSED:
        return f"paused; `nightshift resume {batch.id}` goes on"
    held_back = batch.not_before is not None and now < batch.not_before
    opens = next_opening(windows, max(now, batch.not_before or now))
    if opens is None:
        return "its window and the farm's are never open together"
    if held_back:
        return f"begins {local_time(opens, windows)}"
    return f"its window opens {local_time(opens, windows)}" if opens > now else None


def _ends(batch: BatchSummary, windows: Sequence[Window], now: datetime, per_second: float) -> datetime | None:
    begins = max(now, batch.not_before or now)
    return finishing(windows, begins, timedelta(seconds=(batch.num_jobs - batch.num_ended) / per_second))


def _late(deadline: datetime, windows: Sequence[Window], now: datetime, per_second: float | None,
          ends: datetime | None) -> str | None:  # fmt: skip
    said = local_time(deadline, windows)
    if now >= deadline:
        return f"late: its deadline was {said}"
    if not per_second or (ends is not None and ends <= deadline):
        return None
    when = f"about {local_time(ends, windows)}" if ends else "in more than a year"
    return f"will be late: at {per_second:.2g} images/s it ends {when}, its deadline is {said}"


def time_in_zone_of(window: str, instant: datetime) -> str:
    """In the time zone of this window, ``Sat 2026-11-21 22:00 Europe/Berlin``; of an empty one, in this machine's."""
    return local_time(instant, [Window.parse(window)] if window else [])


def local_time(instant: datetime, windows: Sequence[Window]) -> str:
    """In the window's time zone, else in this machine's."""
    local = instant.astimezone(windows[0].zone if windows else None)
    return f"{local:{_TIME}} {windows[0].zone.key if windows else local.tzname()}"
