"""A worker that is played by the ledger's own functions: packs end as done, with real files, without rendering."""

import hashlib
import io

import PIL.Image

from farm import ledger, packs
from farm.database import Database
from farm.image_store import ImageStore
from farm.workers import note_fingerprint, note_seen, note_worker
from schemas.records import FinishedImage, StoredImage
from schemas.spec import JobSpec
from tests.integration.ledger_farm import ENVIRONMENT, TestClock, claimed_pack, new_worker
from tests.integration.stored_farm import PROVENANCE


def picture(number: int) -> bytes:
    content = io.BytesIO()
    PIL.Image.new("RGB", (64, 64), (number, 0, 0)).save(content, "PNG")
    return content.getvalue()


def ready_worker(database: Database) -> str:
    """One that has said which weights it has."""
    worker_id = new_worker(database)
    note_fingerprint(database, worker_id, ENVIRONMENT.pair_fingerprint)
    note_worker(database, worker_id, "ready")
    return worker_id


def render(database: Database, store: ImageStore, batch_id: int, size: int = 8) -> None:
    """One pack of the batch."""
    render_pack(database, store, batch_id, ready_worker(database), size)


def render_pack(
    database: Database, store: ImageStore, batch_id: int, worker_id: str, size: int = 8,
    clock: TestClock | None = None, seconds: float = 0.0,
) -> None:  # fmt: skip
    """``seconds``: what it takes, by the ledger's clock and on the device."""
    pack = claimed_pack(database, batch_id, worker_id, size)
    packs.begin_rendering(database, pack.id, worker_id)
    if clock is not None:
        clock.advance(seconds)
    ledger.finish_jobs(database, pack, ENVIRONMENT, [finished(store, job.id, job.spec, seconds) for job in pack.jobs])
    note_seen(database, worker_id)


def finished(store: ImageStore, job_id: int, spec: str, seconds: float = 1.0) -> FinishedImage:
    content = picture(job_id)
    sha256 = hashlib.sha256(content).hexdigest()
    image = StoredImage(store.put(content, sha256, "png"), sha256, "b" * 64, len(content), 64, 64, "png")
    digest = JobSpec.from_json(spec).digest
    provenance = PROVENANCE.model_dump(mode="json")
    return FinishedImage(job_id, image, digest, ENVIRONMENT.pair_fingerprint, provenance, 1, seconds, 0.1)
