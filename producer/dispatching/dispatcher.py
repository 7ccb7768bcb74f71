"""The dispatcher: keeps every queue a few packs long, tells again what got lost, takes back what died.

Any number of them may run; the lease ``dispatcher`` in the ledger lets one act.
"""

import logging
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from threading import Event
from typing import Final

from farm import batches, ledger, packs
from farm.broker import Broker
from farm.database import Database
from farm.leases import DISPATCHER, drop_lease, hold_lease, ledger_time
from farm.workers import live_workers
from producer.dispatching import chores
from producer.dispatching.chores import Chores
from producer.dispatching.firings import Firings
from producer.dispatching.release import BatchShare, Turns, is_disputed, packs_wanted, start_before, work_of
from producer.dispatching.shares import order_has_changed, releasable_batches
from producer.dispatching.steadiness import Steadiness
from producer.dispatching.twins import look_at_twins
from producer.dispatching.webhooks import Webhooks
from producer.questions import queries
from producer.questions.outlook import outlooks
from producer.questions.prospect import Prospects
from schemas.errors import BrokerRefusedError, UnavailableError
from schemas.pair import queue_name
from schemas.printable import printable
from schemas.settings import Settings
from schemas.windows import open_until, windows_of

log = logging.getLogger("nightshift.dispatcher")

#: A batch that is still staged after so long without a row has lost its producer. Prompts may come slowly from a pipe.
ABANDONED_SECONDS: Final = 86_400.0
#: A message may be on its way to a claim for this long before the queue counts as shorter than the ledger says.
REPUBLISH_SECONDS: Final = 5.0
#: Released in one transaction, whose locks others wait for.
_MAX_PACKS_AT_ONCE: Final = 50
#: Of a tick: nothing is released meanwhile.
_DISCARD_SECONDS: Final = 0.2
#: Long enough not to hammer a server that starts, short enough that work goes on soon after it is back.
_MAX_BACKOFF_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Tick:
    """What one tick did, in packs (``num_canceled``: jobs)."""

    num_released: int = 0
    num_republished: int = 0
    num_expired: int = 0
    num_canceled: int = 0


Note = Callable[[Tick, float], None]


def note_nothing(_tick: Tick, _seconds: float) -> None:
    """For a dispatcher that nobody asks."""


class Dispatcher:
    """One dispatcher. Not shared between threads. ``firings``: its part in schedules, for one that runs on."""

    def __init__(self, database: Database, broker: Broker, settings: Settings, firings: Firings | None = None) -> None:
        """Raises SettingsError where the webhook may not be used."""
        self._database = database
        self._broker = broker
        self._settings = settings
        self._firings = firings
        self._holder = uuid.uuid4().hex
        self._said_late: set[int] = set()
        self._prospects = Prospects(database, settings)
        self._webhooks = Webhooks(database, settings)
        self._steadiness = Steadiness(settings.lease_seconds, settings.tick_seconds)

    def run(self, stop: Event, note: Note = note_nothing) -> None:
        """Ticks until told to stop. An unreachable ledger or Redis is waited for, with backoff.

        ``note`` is told what each tick did, and how many seconds it took.
        """
        delay = self._settings.tick_seconds
        with self._webhooks:
            while not stop.is_set():
                started = time.monotonic()
                try:
                    note(self.tick(), time.monotonic() - started)
                    delay = self._settings.tick_seconds
                except UnavailableError as error:
                    log.warning("%s; trying again", error)
                    delay = min(delay * 2, _MAX_BACKOFF_SECONDS)
                stop.wait(delay)
        self.close()

    def close(self) -> None:
        """Lets the lease go, so that another dispatcher need not wait for its end; and what it submits."""
        try:
            drop_lease(self._database, DISPATCHER, self._holder)
        except UnavailableError as error:
            log.warning("%s", error)
        if self._firings is not None:
            self._firings.close()

    def tick(self) -> Tick:
        """One round, if this dispatcher holds the lease; schedules are fired without it.

        Raises:
            UnavailableError: ledger or Redis. What was committed before stays; the next tick goes on from there.
        """
        lease_seconds = max(self._settings.lease_seconds / 2, 3 * self._settings.tick_seconds)
        todo = chores.chores(self._database, ABANDONED_SECONDS)
        may_expire = self._steadiness.answered(todo.now)
        if self._firings is not None:
            self._firings.tend()
        if not hold_lease(self._database, DISPATCHER, self._holder, lease_seconds):
            return Tick()
        num_expired = self._expire() if may_expire and todo.expired else 0
        num_canceled = self._sweep(todo)
        if todo.with_deadline:
            self._say_what_will_be_late()
        self._webhooks.note()
        self._look()  # a long tick is no time in which the ledger did not answer
        waiting = queries.waiting(self._database, REPUBLISH_SECONDS)
        refusals = list[BrokerRefusedError]()
        num_republished = self._republish(waiting, refusals)
        num_released = self._release(waiting, refusals)
        self._look()
        if refusals:
            raise refusals[0]
        return Tick(num_released, num_republished, num_expired, num_canceled)

    def _look(self) -> None:
        """Leases that run out while the ledger does not answer are nobody's fault."""
        self._steadiness.answered(ledger_time(self._database))

    def _sweep(self, todo: Chores) -> int:
        for batch_id in chores.abandoned_batches(self._database, ABANDONED_SECONDS) if todo.abandoned else ():
            log.warning("batch %d is discarded: no row of it came for a day, and it was never opened", batch_id)
            batches.discard_batch(self._database, batch_id, _DISCARD_SECONDS)
        if todo.discarded and (discarded := chores.discarded_batch(self._database)) is not None:
            batches.discard_batch(self._database, discarded, _DISCARD_SECONDS)
        if todo.not_to_begin:
            ledger.return_queued(self._database)
        canceled = chores.batches_to_sweep(self._database) if todo.to_sweep else ()
        return sum(ledger.sweep_canceled(self._database, batch_id) for batch_id in canceled)

    def _say_what_will_be_late(self) -> None:
        with_deadline = chores.batches_with_deadline(self._database)
        unsaid = [batch for batch in with_deadline if batch.id not in self._said_late]
        for batch, ahead in outlooks(self._database, unsaid, self._settings.window, self._prospects):
            if ahead.late is not None:
                log.warning("batch %d (%s) %s", batch.id, printable(batch.name), ahead.late)
                self._said_late.add(batch.id)

    def _expire(self) -> int:
        num_expired = ledger.expire_leases(self._database, self._settings.max_attempts)
        if num_expired:
            log.warning("%d packs went back: their workers' leases ran out", num_expired)
        return num_expired

    def _republish(self, waiting: Mapping[str, queries.Waiting], refusals: list[BrokerRefusedError]) -> int:
        num_republished = 0
        for pair, packs_of_pair in waiting.items():
            with _noted(refusals):
                if packs_of_pair.num_old and self._broker.queue_length(queue_name(pair)) < packs_of_pair.num_packs:
                    old = queries.queued_packs(self._database, pair, REPUBLISH_SECONDS)
                    self._publish(pair, old)
                    num_republished += len(old)
        return num_republished

    def _release(self, waiting: Mapping[str, queries.Waiting], refusals: list[BrokerRefusedError]) -> int:
        workers = live_workers(self._database, self._settings.lease_seconds)
        shares = releasable_batches(self._database)
        twins, num_released = look_at_twins(self._database, shares), 0
        for pair in {share.pair for share in shares}:
            num_queued = waiting[pair].num_packs if pair in waiting else 0
            wanted = packs_wanted(workers.get(pair, 0), num_queued, self._settings.queued_packs_per_worker)
            pack_ids = self._release_packs(twins.on_turn(self._in_time(pair, shares)), wanted) if wanted else []
            if pack_ids and order_has_changed(self._database, pair, shares):
                ledger.return_queued(self._database, pair)  # nobody has been told of them
                continue
            num_released += len(pack_ids)
            with _noted(refusals):
                self._publish(pair, pack_ids)
        return num_released

    def _in_time(self, pair: str, shares: Sequence[BatchShare]) -> dict[BatchShare, datetime | None]:
        """The pair's batches of which a pack may begin now, each with the time until which it may; None: always."""
        shares = [share for share in shares if share.pair == pair]
        if is_disputed(shares):
            work = queries.work_under_way(self._database, pair)
            shares = [replace(share, work=work.get(share.id, 0.0)) for share in shares]
        if not any(share.window or self._settings.window for share in shares):
            return dict.fromkeys(shares)
        now = ledger_time(self._database)
        windows = {share: windows_of(share.window, self._settings.window) for share in shares}
        num_pending = {one.id: one.num_pending for one in shares if open_until(windows[one], now) is not None}
        seconds = self._prospects.pack_seconds(pair, num_pending) if num_pending else {}
        untils = {share: start_before(windows[share], now, seconds.get(share.id, 0.0)) for share in shares}
        return {share: until for share, until in untils.items() if until is not None}

    def _release_packs(self, shares: Mapping[BatchShare, datetime | None], wanted: int) -> list[str]:
        turns, untils, pack_ids = Turns(shares), {share.id: until for share, until in shares.items()}, list[str]()
        while len(pack_ids) < wanted and (batch := turns.next()) is not None:
            num_packs = min(wanted - len(pack_ids), _MAX_PACKS_AT_ONCE) if turns.is_undisputed(batch) else 1
            packs = ledger.release_packs(
                self._database, batch.id, num_packs, self._settings.pack_size, untils[batch.id]
            )
            work = sum(work_of(pack.pack_key, pack.num_jobs) for pack in packs)
            turns.took(batch, sum(pack.num_jobs for pack in packs), work)
            pack_ids += [pack.id for pack in packs]
        return pack_ids

    def _publish(self, pair: str, pack_ids: Sequence[str]) -> None:
        if pack_ids:
            self._broker.publish(queue_name(pair), pack_ids)
            packs.note_published(self._database, pack_ids)


@contextmanager
def _noted(refusals: list[BrokerRefusedError]) -> Iterator[None]:
    """One queue that Redis refuses (a stranger's key in its place, say) keeps no other from its packs."""
    try:
        yield
    except BrokerRefusedError as error:
        refusals.append(error)
