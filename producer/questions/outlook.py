"""Why nothing of a batch begins just now, and whether it will be late."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from farm.database import Database
from farm.leases import ledger_time
from producer.dispatching.release import next_start, outlasting_seconds
from producer.questions.prospect import UNKNOWN, Prospect, Prospects
from producer.questions.queries import BatchSummary
from producer.questions.rate import batch_rates
from schemas.settings import Settings
from schemas.states import BatchState
from schemas.windows import Window, finishing, next_opening, windows_of

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


def outlook(database: Database, batch: BatchSummary, settings: Settings) -> Outlook:
    """Of the batch now, by the ledger's clock, its images of the last minutes and its pair's last packs."""
    ((_, ahead),) = outlooks(database, [batch], settings.window, Prospects(database, settings))
    return ahead


def outlooks(database: Database, batches: Sequence[BatchSummary], farm_window: str, prospects: Prospects,
             rates: Mapping[int, float] | None = None) -> list[tuple[BatchSummary, Outlook]]:  # fmt: skip
    """Each batch with what is ahead of it. ``rates``: ``batch_rates``, where they are known already."""
    if not batches:
        return []
    now = ledger_time(database)
    known = prospects.of(now, batches)
    rates = batch_rates(database) if rates is None else rates
    return [
        (batch, outlook_at(now, batch, farm_window, rates.get(batch.id), known.get(batch.id, UNKNOWN)))
        for batch in batches
    ]


def outlook_at(now: datetime, batch: BatchSummary, farm_window: str, per_second: float | None = None,
               prospect: Prospect = UNKNOWN) -> Outlook:  # fmt: skip
    """``per_second``: images a second of this batch lately; None where there were none. A canceled batch has nothing
    ahead but the end of what renders; when a paused one ends nobody knows."""
    if batch.ended or batch.state == BatchState.CANCELED:
        return GOES_ON
    if batch.state == BatchState.PAUSED:
        per_second, prospect = None, UNKNOWN
    windows = windows_of(batch.window, farm_window)
    begins_at = max(now, batch.not_before or now)
    ends = _ends(batch, windows, begins_at, per_second) if per_second else None
    waits = _waits(batch, windows, now, prospect.pack_seconds) or _waits_for(prospect)
    if batch.deadline is None:
        return Outlook(waits, None, ends)
    said = local_time(batch.deadline, windows)
    if now >= batch.deadline:
        return Outlook(waits, f"late: its deadline was {said}", ends)
    why = _late_as_it_begins(batch, windows, begins_at, prospect.pack_seconds)
    if why is None and per_second:
        why = _late_as_it_ends(batch.deadline, windows, ends, f"at {per_second:.2g} images/s")
    elif why is None and prospect.per_second:
        ends_by_pace = _ends(batch, windows, begins_at, prospect.per_second, prospect.seconds_before)
        why = _late_as_it_ends(batch.deadline, windows, ends_by_pace, _paced(prospect, prospect.per_second))
    return Outlook(waits, why and f"will be late: {why}, its deadline is {said}", ends)


def waits(now: datetime, batch: BatchSummary, farm_window: str, prospect: Prospect = UNKNOWN) -> str | None:
    """Why nothing of the batch may begin at ``now``; None where it may, or has ended."""
    if batch.ended:
        return None
    return _waits(batch, windows_of(batch.window, farm_window), now, 0.0) or _waits_for(prospect)


def _waits_for(prospect: Prospect) -> str | None:
    return None if prospect.waits_for is None else goes_first(prospect.waits_for)


def goes_first(batch_id: int) -> str:
    """What is said of a batch that waits for this one (``producer.questions.twin_batches``)."""
    return f"batch {batch_id} has the same images and goes first"


def _waits(batch: BatchSummary, windows: Sequence[Window], now: datetime, pack_seconds: float) -> str | None:
    if batch.state == BatchState.PAUSED:
        return f"paused; `nightshift resume {batch.id}` goes on"
    held_back = batch.not_before is not None and now < batch.not_before
    begins_at = max(now, batch.not_before or now)
    opens, begins = next_opening(windows, begins_at), next_start(windows, begins_at, pack_seconds)
    if opens is None or begins is None:
        return "its window and the farm's are never open together"
    if not held_back and opens <= now:
        again = f"no more begins before its window closes, for a pack takes about {_span(pack_seconds)}; it opens again"
        return f"{again} {local_time(begins, windows)}" if begins > now else None
    when = f"{'begins' if held_back else 'its window opens'} {local_time(begins, windows)}"
    outlasts = outlasting_seconds(windows, begins, pack_seconds) is not None
    return f"{when}; a pack takes about {_span(pack_seconds)} and ends after it closes" if outlasts else when


def _ends(batch: BatchSummary, windows: Sequence[Window], begins_at: datetime, per_second: float,
          seconds_before: float = 0.0) -> datetime | None:  # fmt: skip
    left = timedelta(seconds=seconds_before + (batch.num_jobs - batch.num_ended) / per_second)
    return finishing(windows if batch.num_pending + batch.num_queued else (), begins_at, left)  # what renders goes on


def _late_as_it_begins(batch: BatchSummary, windows: Sequence[Window], begins_at: datetime, pack_seconds: float
                       ) -> str | None:  # fmt: skip
    """Why it is certain, however fast it is rendered: jobs of it wait, and may not begin before its deadline."""
    begins = next_start(windows, begins_at, pack_seconds)
    if not batch.num_pending + batch.num_queued or (begins and batch.deadline and begins < batch.deadline):
        return None
    what = "no more" if batch.num_done + batch.num_failed + batch.num_running else "nothing"
    return f"{what} of it begins before {local_time(begins, windows)}" if begins else f"{what} of it ever begins"


def _late_as_it_ends(deadline: datetime, windows: Sequence[Window], ends: datetime | None, how: str) -> str | None:
    if ends is not None and ends <= deadline:
        return None
    return f"{how} it ends {f'about {local_time(ends, windows)}' if ends else 'in more than a year'}"


def _paced(prospect: Prospect, per_second: float) -> str:
    behind = "after those of a higher priority, " if prospect.seconds_before else ""
    return f"{behind}at the {per_second:.2g} images/s of its pair's last packs"


def _span(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def time_in_zone_of(window: str, instant: datetime) -> str:
    """In the time zone of this window, ``Sat 2026-11-21 22:00 Europe/Berlin``; of an empty one, in this machine's."""
    return local_time(instant, windows_of(window))


def local_time(instant: datetime, windows: Sequence[Window]) -> str:
    """In the window's time zone, else in this machine's."""
    local = instant.astimezone(windows[0].zone if windows else None)
    return f"{local:{_TIME}} {windows[0].zone.key if windows else local.tzname()}"
