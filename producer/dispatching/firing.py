"""One firing of a schedule: its order is read and becomes a batch, or the firing says why not."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from threading import Event, Thread
from zoneinfo import ZoneInfo

from farm import batches, firings
from farm.database import Database
from farm.firings import ClaimedFiring
from producer.manifests.counted_advice import CountedAdvice
from producer.manifests.manifest import read_manifest
from producer.manifests.rows import BadRow, Row
from producer.submitting.orders import of_schedule, read_options, source_of
from producer.submitting.submit import Submission, submit
from schemas.errors import InputError, LeaseLostError, NightshiftError, UnavailableError
from schemas.printable import printable
from schemas.schedule import RETRY_SECONDS, order_of_firing
from schemas.settings import Settings
from schemas.submit_order import SubmitOrder
from schemas.wall_clock import zone_named

log = logging.getLogger("nightshift.schedules")


class StoppedError(NightshiftError):
    """The process that submits a firing stops; nothing is wrong with the firing."""

    code = "stopped"


def submit_firing(database: Database, settings: Settings, claimed: ClaimedFiring, stop: Event) -> Submission:
    """Makes the batch, and ends the firing with it. What an earlier try left in staging is discarded.

    Raises:
        StoppedError: ``stop`` was set before the last row was read. Nothing of the batch stays, as after every error.
        LeaseLostError: somebody else submits it by now.
        InputError, UnavailableError: as ``submit`` raises them.
    """
    if claimed.batch_id is not None:
        batches.discard_batch(database, claimed.batch_id, batches.DISCARD_SECONDS)
    order = order_of_firing(claimed.schedule, SubmitOrder.from_json(claimed.order), claimed.due_at, _zone(claimed))
    request = replace(of_schedule(settings, order, claimed.schedule, claimed.due_at), fence=claimed.fence)
    advised = CountedAdvice(settings.model_pair(order.pair))
    rows = _until(stop, read_manifest(source_of(order), read_options(settings, order)))
    with _lease_kept(database, claimed.fence, settings.lease_seconds):
        submission = submit(database, advised.passed(rows), request)
    for warned in advised.warnings:
        log.warning("schedule %s: %s", printable(claimed.schedule), warned)
    return submission


def try_firing(database: Database, settings: Settings, claimed: ClaimedFiring, stop: Event) -> None:
    """The same, as dispatchers do it: what goes wrong is the firing's state, and in the log.

    Where the ledger itself does not answer, the lease runs out, and the firing is taken up again.
    """
    name = printable(claimed.schedule)
    try:
        made = submit_firing(database, settings, claimed, stop)
        log.info("schedule %s: batch %d has %d jobs", name, made.batch_id, made.num_jobs)
    except StoppedError:
        with suppress(UnavailableError):
            firings.give_back_firing(database, claimed.fence)
    except LeaseLostError as error:
        log.warning("schedule %s: %s", name, error)
    except NightshiftError as error:
        log.warning("schedule %s, %s UTC: %s", name, f"{claimed.due_at:%Y-%m-%d %H:%M}", printable(str(error)))
        with suppress(UnavailableError):
            _note_error(database, claimed, error)


def _note_error(database: Database, claimed: ClaimedFiring, error: NightshiftError) -> None:
    if error.retryable and claimed.tries <= len(RETRY_SECONDS):
        firings.retry_firing(database, claimed.fence, str(error), RETRY_SECONDS[claimed.tries - 1])
    else:
        firings.fail_firing(database, claimed.fence, str(error))


@contextmanager
def _lease_kept(database: Database, fence: str, lease_seconds: float) -> Iterator[None]:
    """While it is submitted: it may wait long for its manifest, or for the image store."""
    ended = Event()

    def keep() -> None:
        while not ended.wait(lease_seconds / 3):
            with suppress(UnavailableError):
                firings.keep_firing(database, fence, lease_seconds)

    thread = Thread(target=keep, name="firing's lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _until(stop: Event, rows: Iterable[Row | BadRow]) -> Iterator[Row | BadRow]:
    for row in rows:
        if stop.is_set():
            raise StoppedError("stopped before the last row was read")
        yield row


def _zone(claimed: ClaimedFiring) -> ZoneInfo:
    try:
        return zone_named(claimed.timezone)
    except ValueError as error:
        raise InputError(str(error)) from None
