"""Builds batches, workers and finished images in a real ledger, for the tests of it."""

import uuid
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select

from farm import batches, ledger
from farm.database import Database
from farm.job_states import STATE
from farm.workers import WorkerIdentity, register_worker
from schemas.provenance import Environment
from schemas.records import ClaimedPack, FinishedImage, ReleasedPack, StagedJob, StoredImage
from schemas.spec import JobSpec
from schemas.states import JobState
from schemas.tables import Batch, Job
from schemas.written_spec import WrittenSpec
from tests.ledgers import make_tables

ENVIRONMENT = Environment(
    pair="tiny",
    pair_fingerprint="f" * 64,
    base="synthetic:tiny",
    base_revision=None,
    base_hash="b" * 10,
    refiner=None,
    refiner_revision=None,
    refiner_hash=None,
    license="none",
    versions={"nightshift": "0"},
    device="cpu",
    dtype="float32",
    attention_backend="sdpa",
)
LEASE_SECONDS = 60.0


class TestClock:
    """A clock that moves when it is told to."""

    __test__ = False

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 21, 22, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def new_ledger(url: str, clock: TestClock | None = None) -> Database:
    database = Database(url, clock)
    make_tables(database)
    return database


def staged(number: int, **fields: object) -> StagedJob:
    spec = JobSpec.parse({"prompt": f"cat {number}", "seed": number, **fields})
    return StagedJob.of(number, WrittenSpec.of(spec), 0, {"row": "x"})


def open_batch(database: Database, num_jobs: int = 4, priority: int = 5, pair: str = "tiny", **fields: object) -> int:
    batch_id = batches.create_batch(database, "cats", pair, priority)
    ledger.stage_jobs(database, batch_id, [staged(n, **fields) for n in range(1, num_jobs + 1)])
    batches.open_batch(database, batch_id)
    return batch_id


def new_worker(database: Database, pair: str = "tiny", definition: str | None = None) -> str:
    worker_id = uuid.uuid4().hex
    register_worker(database, WorkerIdentity(worker_id, "host", 1, "cpu", pair, definition))
    return worker_id


def release_pack(
    database: Database, batch_id: int, size: int = 8, start_before: datetime | None = None
) -> ReleasedPack | None:
    packs = ledger.release_packs(database, batch_id, 1, size, start_before)
    return packs[0] if packs else None


def claimed_pack(database: Database, batch_id: int, worker_id: str, size: int = 8) -> ClaimedPack:
    released = release_pack(database, batch_id, size)
    assert released is not None
    pack = ledger.claim_pack(database, released.id, worker_id, LEASE_SECONDS)
    assert pack is not None
    return pack


def images_of(pack: ClaimedPack, mark: str = "", seconds: float = 1.0) -> list[FinishedImage]:
    """``seconds``: of the forward pass that they come from."""
    return [
        FinishedImage(
            job_id=job.id,
            image=StoredImage(f"file:///images/{job.id}{mark}.png", "a" * 64, "b" * 64, 10, 64, 64, "png"),
            spec_digest=JobSpec.from_json(job.spec).digest,
            pair_fingerprint="f" * 64,
            provenance={},
            attempt=job.attempts + 1,
            render_seconds=seconds,
            finish_seconds=0.1,
        )
        for job in pack.jobs
    ]


def states(database: Database, batch_id: int) -> dict[JobState, int]:
    """Counted from the jobs; asserts that the batch's counters say the same."""
    with database.begin(read_only=True) as tx:
        by_state = select(STATE.label("job_state"), func.count()).where(Job.batch_id == batch_id)
        rows = tx.execute(by_state.group_by("job_state")).all()
        batch = tx.execute(select(Batch).where(Batch.id == batch_id)).one()
    counted = {JobState(state): num for state, num in rows}
    assert {state: getattr(batch, f"num_{state}") for state in JobState} == {s: counted.get(s, 0) for s in JobState}
    return counted


def num_waiting(database: Database) -> int:
    """How many statements wait for a lock that another transaction of this PostgreSQL database holds."""
    with database.begin(read_only=True) as tx:
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        return int(tx.connection.exec_driver_sql(waits).scalar_one())


def job_rows(database: Database, batch_id: int) -> list:
    with database.begin(read_only=True) as tx:
        return list(tx.execute(select(Job).where(Job.batch_id == batch_id).order_by(Job.number)).all())
