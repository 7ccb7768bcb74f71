"""What listeners are told: what each moment has that the moment before had not. Pure but for the clock of the rates.

==========  ====================  =====================================================================
event       key                   what
==========  ====================  =====================================================================
batch       its number            ``BatchShape``, and how fast it goes; also when it has just ended
removed     its number            it is gone: discarded, or removed with its jobs
worker      its id                a live worker
left        its id                it is live no more
ledger      nothing               whether the ledger answers; said first, and when that changes
redis       nothing               whether Redis does: without it nothing new begins; said so, too
==========  ====================  =====================================================================
"""

import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from producer.questions.following import Rate
from producer.questions.outlook import outlook_at, waits
from producer.questions.queries import BatchSummary
from producer.web.api.shapes import BatchShape
from producer.web.moment import MAX_BATCHES, Moment

#: (event, key)
Key = tuple[str, str]
#: what is to be told
News = dict[Key, dict[str, Any]]
LEDGER: Final[Key] = ("ledger", "")
REDIS: Final[Key] = ("redis", "")
#: they move with the clock, and are told when something else has changed
_DRIFTING: Final = frozenset({"ends", "images_per_second"})


class Happenings:
    """``present``: what somebody who begins to listen is told first; nothing before the first look, so that whoever has
    heard of the ledger misses nothing that happens from then on. For one thread."""

    def __init__(self, farm_window: str) -> None:
        self.present: News = {}
        self.known: set[int] = set()
        self.newest: int | None = None
        self._farm_window = farm_window
        self._rates: dict[int, Rate] = {}

    def silence(self) -> News:
        """The ledger does not answer."""
        return self._told({LEDGER: {"answers": False}})

    def seen(self, moment: Moment, *, redis_answers: bool) -> News:
        """What is new."""
        servers: News = {LEDGER: {"answers": True}, REDIS: {"answers": redis_answers}}
        now = {**servers, **dict(self._batches(moment)), **dict(_workers(moment))}
        removed: News = {("removed", str(batch_id)): {"id": batch_id} for batch_id in moment.gone}
        left: News = {("left", key): {"id": key} for event, key in self.present
                      if event == "worker" and (event, key) not in now}  # fmt: skip
        news = self._told(now)
        going_on = [batch.id for batch in moment.batches if not batch.ended]
        self.known, self.newest = set(going_on[:MAX_BATCHES]), moment.newest
        self.present = {key: content for key, content in now.items() if key[0] != "batch" or int(key[1]) in self.known}
        self._rates = {batch_id: rate for batch_id, rate in self._rates.items() if batch_id in self.known}
        return news | removed | left

    def _told(self, now: News) -> News:
        news = {key: content for key, content in now.items() if _fixed(content) != _fixed(self.present.get(key))}
        self.present |= news
        return news

    def _batches(self, moment: Moment) -> Iterator[tuple[Key, dict[str, Any]]]:
        for batch in moment.batches:
            yield ("batch", str(batch.id)), self._batch(batch, moment.now)

    def _batch(self, batch: BatchSummary, now: datetime) -> dict[str, Any]:
        rate = self._rates.setdefault(batch.id, Rate())
        num_tried = batch.num_done + batch.num_failed  # canceled ones are no images
        rate.note(time.monotonic(), num_tried, waits=waits(now, batch, self._farm_window) is not None)
        ahead = outlook_at(now, batch, self._farm_window, rate.expected)
        shape = BatchShape.of(batch, ahead).model_dump(mode="json")
        return {**shape, "images_per_second": None if batch.ended else rate.per_second}


def _workers(moment: Moment) -> Iterator[tuple[Key, dict[str, Any]]]:
    for row in moment.workers:
        content = {**row._mapping, "started_at": row.started_at.isoformat()}
        yield ("worker", row.id), content


def _fixed(content: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if content is None else {name: value for name, value in content.items() if name not in _DRIFTING}
