"""A ledger that the first version wrote, brought to today's tables: today's code reads all of it, and finishes it."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import inspect, text

from farm import batches, ledger
from farm.database import Database, Transaction
from farm.image_store import ImageStore
from farm.leases import DISPATCHER, hold_lease
from farm.recorded_images import recorded_job
from farm.schema import _config, current_revision, head_revision, upgrade
from farm.submissions import earlier_request
from farm.tokens import token_of
from farm.workers import known_fingerprint, workers_by_id
from producer.dispatching.schedule_queries import schedules
from producer.questions.job_results import job_results
from producer.questions.queries import batch_summaries
from producer.submitting.linking import link_existing
from producer.upkeep.verification import Verification
from schemas.errors import SchemaVersionError
from schemas.records import ClaimedPack
from schemas.settings import Settings
from schemas.spec import JobSpec
from schemas.submit_order import SubmitOrder
from tests.integration.ledger_farm import ENVIRONMENT, LEASE_SECONDS, TestClock, claimed_pack, new_worker, states
from tests.integration.stored_farm import PROVENANCE, new_batch, pixels
from worker.image_files.finishing import FileMaker, Finisher, Unfinished

DATA = Path(__file__).parents[1] / "data"
#: its sha256, which is in the rows
IMAGE = "c2cfc9b710d4b8afcec817aeb78fbde14b5d2eb39944aa5abd76b75db8d00de5"
OLD_WORKER, QUEUED_PACK = f"{1:032x}", f"{5:032x}"


@pytest.fixture
def postgres_url(empty_postgres_url: str) -> str:
    """Without tables, here."""
    return empty_postgres_url


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(str(tmp_path / "images"))


@pytest.fixture
def old(database_url: str, clock: TestClock, store: ImageStore) -> Iterator[Database]:
    """Not yet upgraded from 0009; its farm has been killed while a worker held a pack."""
    clock.advance(30)
    assert store.put((DATA / "ledger-0001.png").read_bytes(), IMAGE, "png").startswith(store.url)
    with closing(Database(database_url, clock)) as database:
        for revision in ("0001", "0009"):
            with database.begin() as tx:
                _reach(tx, revision)
                _write(tx, (DATA / f"ledger-{revision}.sql").read_text().replace("{images}", store.url))
        yield database


def _reach(tx: Transaction, revision: str) -> None:
    config = _config()
    config.attributes["connection"] = tx.connection
    command.upgrade(config, revision)


def _write(tx: Transaction, statements: str) -> None:
    for line in statements.splitlines():
        if not line.startswith("--"):
            tx.connection.exec_driver_sql(line.replace("%", "%%"))
    if tx.dialect == "postgresql":  # which counts what it numbers itself
        for table in inspect(tx.connection).get_table_names():
            columns = {column["name"]: column for column in inspect(tx.connection).get_columns(table)}
            if columns.get("id", {}).get("autoincrement"):
                counter = f"pg_get_serial_sequence('{table}', 'id')"
                tx.execute(text(f"SELECT setval({counter}, (SELECT max(id) FROM {table}))"))


def finish(database: Database, store: ImageStore, pack: ClaimedPack) -> None:
    finisher = Finisher(store, FileMaker(ENVIRONMENT, watermark=True, png_compress_level=1))
    specs = [(job, JobSpec.from_json(job.spec)) for job in pack.jobs]
    images = [finisher.finish(Unfinished(job, spec, pixels(spec), PROVENANCE, 1.0)) for job, spec in specs]
    ledger.finish_jobs(database, pack, ENVIRONMENT, images)


def empty_tables(database: Database) -> list[str]:
    with database.begin(read_only=True) as tx:
        tables = inspect(tx.connection).get_table_names()
        return [name for name in tables if not tx.execute(text(f"SELECT count(*) FROM {name}")).scalar_one()]


def test_a_ledger_of_the_first_version_is_read_as_it_was_written(old: Database, clock: TestClock) -> None:
    with pytest.raises(SchemaVersionError, match=r"hold packs .+ \(1\)"):  # its lease has not run out
        upgrade(old)
    clock.advance(120)
    assert upgrade(old) == current_revision(old) == head_revision()
    assert empty_tables(old) == []  # or rows of then are missing for a table of today
    batch = batch_summaries(old, 9)[-1]
    assert (batch.name, batch.weight, batch.window, batch.num_done) == ("cats", 2.0, "22:00-06:00 UTC", 1)
    assert states(old, 1) == {"done": 1, "failed": 1, "running": 2, "queued": 2, "pending": 2}
    assert (states(old, 2), states(old, 3)) == ({"canceled": 2}, {"pending": 1})
    jobs = list(job_results(old, 1))
    assert [job.spec.prompt for job in jobs] == [f"cat {n}" for n in range(1, 9)]
    assert (jobs[1].error_code, jobs[1].error, jobs[1].meta) == ("render", "it broke", {"row": "x"})
    recorded = recorded_job(old, 1, 1)
    assert (recorded.provenance.base_steps, recorded.environment.options, recorded.sha256) == (32, {}, IMAGE)
    assert workers_by_id(old, [OLD_WORKER])[OLD_WORKER].reading is None
    assert known_fingerprint(old, "tiny") == known_fingerprint(old, "tiny", "a" * 64) is not None
    ((schedule, last),) = schedules(old)
    assert SubmitOrder.from_json(schedule.order).fields == {"width": "512"}
    assert last is not None
    assert (last.batch_id, last.batch_ended) == (1, False)
    token, asked = token_of(old, "e" * 64), earlier_request(old, "a" * 64)
    assert token is not None
    assert asked is not None
    assert (token.rights.max_pending, (asked.answer or {})["num_jobs"]) == (100, 8)


def test_a_ledger_of_the_first_version_is_claimed_finished_linked_to_and_found_sound(
    old: Database, clock: TestClock, store: ImageStore
) -> None:
    clock.advance(120)
    upgrade(old)
    assert hold_lease(old, DISPATCHER, "d" * 32, 30)
    assert ledger.expire_leases(old, 3) == 1
    worker_id = new_worker(old)
    queued = ledger.claim_pack(old, QUEUED_PACK, worker_id, LEASE_SECONDS)
    assert queued is not None
    finish(old, store, queued)
    assert ledger.retry_failed(old, 1) == 1
    while states(old, 1).get("pending"):  # some of them alone, for their pack died
        finish(old, store, claimed_pack(old, 1, worker_id, 8))
    assert states(old, 1) == {"done": 8}
    batches.discard_batch(old, 3)
    again = new_batch(old, [JobSpec.parse({"prompt": "cat 1", "seed": 1, "width": 64, "height": 64})])
    assert link_existing(old, again, "tiny", store.url) == 1
    found = Verification(old, Settings(images_url=store.url), lambda _counts: None)
    assert list(found.of_everything(clean=False)) == []
    assert (found.counts.num_jobs, found.counts.num_images) == (8 + 2 + 1, 8)
