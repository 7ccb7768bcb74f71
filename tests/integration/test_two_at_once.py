"""Two who change the same rows at the same moment, on PostgreSQL, where one waits for the other: neither fails, and
they do not wait for each other, which would cost a second and one of them a second try.

In each, a transaction of this thread is in the middle of what one does when another thread does the other thing.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import select, text

from farm import batches, ledger, packs, removal
from farm.database import Database, Transaction
from farm.queueing import next_packs, queue_jobs
from farm.staging import insert_staged
from farm.webhook_deliveries import note_events
from producer.questions.twin_batches import in_groups, newest_image
from schemas.errors import NotFoundError
from schemas.states import JobState
from schemas.tables import Batch, Image, Job, Result
from schemas.web_tables import WebhookDelivery
from tests.integration.ledger_farm import (
    ENVIRONMENT,
    LEASE_SECONDS,
    claimed_pack,
    images_of,
    job_rows,
    new_ledger,
    new_worker,
    num_waiting,
    open_batch,
    release_pack,
    staged,
    states,
)


@pytest.fixture
def database(postgres_url: str) -> Iterator[Database]:
    with closing(new_ledger(postgres_url)) as database:
        yield database


@pytest.fixture
def other() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads


def started(other: ThreadPoolExecutor, database: Database, does: Callable[..., Any], *what: Any) -> Future[Any]:
    """Under way in another thread: it has ended, or waits for a lock."""
    num_before = num_waiting(database)
    future = other.submit(does, database, *what)
    deadline = time.monotonic() + 30
    while not future.done() and num_waiting(database) == num_before:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return future


def lock_batch(tx: Transaction, batch_id: int) -> None:
    """Ends this transaction, and not the other one, where each would wait for the other."""
    tx.execute(text("SET LOCAL deadlock_timeout = '1ms'"))
    tx.execute(select(Batch.id).where(Batch.id == batch_id).with_for_update())


def test_a_batch_that_is_discarded_while_rows_come_is_gone_with_all_of_them(
    database: Database, other: ThreadPoolExecutor
) -> None:
    batch_id = batches.create_batch(database, "cats", "tiny", 5)
    with database.begin() as tx:
        insert_staged(tx, batch_id, JobState.PENDING, [staged(1)])
        discarding = started(other, database, batches.discard_batch, batch_id)
    discarding.result()
    assert job_rows(database, batch_id) == []


def test_a_batch_that_is_discarded_while_it_is_linked_is_gone_with_its_links(
    database: Database, other: ThreadPoolExecutor
) -> None:
    pack = claimed_pack(database, open_batch(database, 1), new_worker(database))
    ledger.finish_jobs(database, pack, ENVIRONMENT, images_of(pack))
    batch_id = batches.create_batch(database, "cats", "tiny", 5)
    ledger.stage_jobs(database, batch_id, [staged(1)])
    (job,) = job_rows(database, batch_id)
    with database.begin() as tx:
        image_id = tx.execute(select(Image.id)).scalar_one()
        assert ledger.link_jobs.__wrapped__(tx, batch_id, {job.id: image_id}) == 1
        discarding = started(other, database, batches.discard_batch, batch_id)
    discarding.result()
    assert job_rows(database, batch_id) == []


def test_a_batch_that_is_opened_while_it_is_discarded_is_gone_or_has_all_its_jobs(
    database: Database, other: ThreadPoolExecutor
) -> None:
    """Of a large one, the jobs alone take seconds to go."""
    batch_id = batches.create_batch(database, "cats", "tiny", 5)
    ledger.stage_jobs(database, batch_id, [staged(1), staged(2)])
    with database.begin() as tx:
        tx.execute(select(Job.id).where(Job.batch_id == batch_id).with_for_update())
        discarding = started(other, database, batches.discard_batch, batch_id)
        opening = started(other, database, batches.open_batch, batch_id)
    discarding.result()
    with pytest.raises(NotFoundError):
        opening.result()
    assert job_rows(database, batch_id) == []


def test_what_is_released_while_its_batch_is_canceled_is_canceled_after_it(
    database: Database, other: ThreadPoolExecutor
) -> None:
    batch_id = open_batch(database, 6)
    release_pack(database, batch_id, 2)
    with database.begin() as tx:
        made = next_packs(tx, batch_id, 1, 2)
        batches.cancel_batch(database, batch_id)
        sweeping = started(other, database, ledger.sweep_canceled, batch_id)
        lock_batch(tx, batch_id)
        queue_jobs(tx, batch_id, made, None)
    assert sweeping.result() == 4
    assert ledger.sweep_canceled(database, batch_id) == 2
    assert states(database, batch_id) == {JobState.CANCELED: 6}


def test_packs_of_many_batches_go_back_in_the_order_of_their_batches(
    database: Database, other: ThreadPoolExecutor
) -> None:
    """Their workers died, or somebody has put the batches in another order: two may do that at once."""
    worker_id = new_worker(database)
    for go_back, *what in ((ledger.return_queued, "tiny"), (ledger.expire_leases, 3, worker_id)):
        first, second, *packs_of_both = two_batches(database)
        if go_back is ledger.expire_leases:
            for pack_id in packs_of_both:
                assert ledger.claim_pack(database, pack_id, worker_id, LEASE_SECONDS)
        with database.begin() as tx:
            lock_batch(tx, first)
            going_back = started(other, database, go_back, *what)
            lock_batch(tx, second)
        assert going_back.result() >= 2
        assert states(database, first) == states(database, second) == {JobState.PENDING: 1}


def two_batches(database: Database) -> tuple[int, int, str, str]:
    """And a queued pack of each. The second one's pack has the lower id, and so is locked first."""
    while True:
        ids = open_batch(database, 1), open_batch(database, 1)
        made = [release_pack(database, batch_id) for batch_id in ids]
        first, second = (pack.id for pack in made if pack is not None)
        if second < first:
            return *ids, first, second


def test_a_pack_is_claimed_while_it_is_noted_as_published(database: Database, other: ThreadPoolExecutor) -> None:
    """A worker that has nothing to do is that quick. Its message is used up, and the next one comes after seconds."""
    pack = release_pack(database, open_batch(database, 1))
    assert pack is not None
    worker_id = new_worker(database)
    with database.begin() as tx:
        packs.note_published.__wrapped__(tx, [pack.id])
        claiming = started(other, database, ledger.claim_pack, pack.id, worker_id, LEASE_SECONDS, "")
    claimed = claiming.result()
    assert claimed is not None
    assert claimed.id == pack.id


def test_a_batch_is_removed_while_the_webhook_is_to_be_told_of_it(
    database: Database, other: ThreadPoolExecutor
) -> None:
    batch_id = empty_batch(database)
    with database.begin() as tx:
        note_events.__wrapped__(tx, 0.5)
        removing = started(other, database, removal.remove_batch, batch_id)
    assert removing.result()
    with database.begin(read_only=True) as tx:
        assert tx.execute(select(WebhookDelivery)).all() == []


def test_a_batch_that_is_removed_is_none_that_the_webhook_is_to_be_told_of(
    database: Database, other: ThreadPoolExecutor
) -> None:
    batch_id = empty_batch(database)
    with database.begin() as tx:
        assert removal.remove_batch.__wrapped__(tx, batch_id)
        noting = started(other, database, note_events, 0.5)
    assert noting.result() == 0


def empty_batch(database: Database) -> int:
    """As the removal of its jobs leaves it."""
    batch_id = batches.create_batch(database, "cats", "tiny", 5)
    batches.open_batch(database, batch_id)
    return batch_id


def test_of_two_equal_lists_that_are_opened_at_once_the_second_sees_the_first(
    database: Database, other: ThreadPoolExecutor
) -> None:
    first, second = (batches.create_batch(database, "cats", "tiny", 5) for _ in range(2))
    for batch_id in (first, second):
        ledger.stage_jobs(database, batch_id, [staged(1), staged(2)])
    with database.begin() as tx:
        batches.open_batch.__wrapped__(tx, first, None, 0)
        future = started(other, database, batches.open_batch, second, None, 0)
    future.result()
    assert {one.batch.id for one in in_groups(database, [first])} == {first, second}


def test_jobs_that_are_canceled_while_they_are_linked_are_one_of_the_two(
    database: Database, other: ThreadPoolExecutor
) -> None:
    pack = claimed_pack(database, open_batch(database, 1), new_worker(database))
    ledger.finish_jobs(database, pack, ENVIRONMENT, images_of(pack))
    batch_id = open_batch(database, 1)
    batches.cancel_batch(database, batch_id)
    (job,) = job_rows(database, batch_id)
    with database.begin() as tx:
        ledger.sweep_canceled.__wrapped__(tx, batch_id)
        future = started(other, database, ledger.link_jobs, batch_id, {job.id: newest_image(database)})
    assert future.result() == 0
    assert states(database, batch_id) == {"canceled": 1}
    with database.begin(read_only=True) as tx:
        assert tx.execute(select(Result).where(Result.job_id == job.id)).all() == []
