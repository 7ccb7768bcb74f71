"""Batches whose images are real files with real watermarks, made without rendering, for the tests of `verify`."""

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import select, update

from farm import batches, ledger
from farm.database import Database
from farm.image_store import ImageStore, local_path
from schemas.provenance import Provenance
from schemas.records import StagedJob
from schemas.spec import JobSpec
from schemas.tables import Image, Job, Result
from schemas.written_spec import WrittenSpec
from tests.integration.ledger_farm import ENVIRONMENT, claimed_pack, new_worker
from worker.image_files.finishing import FileMaker, Finisher, Unfinished

PROVENANCE = Provenance(
    handoff="none", forward_pass_size=1, base_steps=2, refiner_steps=0, handoff_sigma=None, prompt_chunks=1,
    refiner_prompt_chunks=0, watermark_bits=None,
)  # fmt: skip
#: with each format, lossless and lossy; the second one is too small for a watermark
KINDS: Sequence[dict[str, Any]] = (
    {},
    {"width": 64, "height": 64},
    {"output": {"format": "webp"}},
    {"output": {"format": "webp", "quality": 80}},
    {"output": {"format": "jpeg"}},
)


def job_spec(number: int, **fields: Any) -> JobSpec:
    return JobSpec.parse({"prompt": f"cat {number}", "seed": number, "width": 256, "height": 256, **fields})


def pixels(spec: JobSpec) -> np.ndarray:
    """Soft colours with some grain, other ones for another seed."""
    y, x = np.mgrid[0 : spec.height, 0 : spec.width]
    waves = np.stack([128 + 20 * np.sin(x / (50 + n) + n) * np.cos(y / (65 - n)) for n in range(3)], axis=-1)
    grain = np.random.default_rng(spec.seed).normal(0, 4, waves.shape)
    return (waves + grain).clip(0, 255).astype(np.uint8)


def new_batch(database: Database, specs: Sequence[JobSpec]) -> int:
    batch_id = batches.create_batch(database, "cats", "tiny", 5)
    jobs = [StagedJob.of(number, WrittenSpec.of(spec), 0, {}) for number, spec in enumerate(specs, 1)]
    ledger.stage_jobs(database, batch_id, jobs)
    batches.open_batch(database, batch_id)
    return batch_id


def done_batch(database: Database, images_url: str, kinds: Sequence[dict[str, Any]] = ({},) * 4) -> int:
    """A batch with a done job for each kind, in packs of two at the most."""
    batch_id = new_batch(database, [job_spec(number, **kind) for number, kind in enumerate(kinds, 1)])
    finisher = Finisher(ImageStore(images_url), FileMaker(ENVIRONMENT, watermark=True, png_compress_level=1))
    worker_id, num_left = new_worker(database), len(kinds)
    while num_left:
        pack = claimed_pack(database, batch_id, worker_id, size=2)
        specs = [(job, JobSpec.from_json(job.spec)) for job in pack.jobs]
        images = [finisher.finish(Unfinished(job, spec, pixels(spec), PROVENANCE, 1.0)) for job, spec in specs]
        ledger.finish_jobs(database, pack, ENVIRONMENT, images)
        num_left -= len(images)
    return batch_id


def image_path(database: Database, number: int, batch_id: int = 1) -> Path:
    """Where the file of the job lies."""
    wanted = (
        select(Image.uri)
        .join(Result)
        .join(Job, Job.id == Result.job_id)
        .where(Job.batch_id == batch_id, Job.number == number)
    )
    with database.begin(read_only=True) as tx:
        path = local_path(tx.execute(wanted).scalar_one())
    assert path is not None
    return path


def change_job(database: Database, number: int, batch_id: int = 1, **values: Any) -> None:
    with database.begin() as tx:
        tx.execute(update(Job).where(Job.batch_id == batch_id, Job.number == number).values(**values))


def change_image(database: Database, number: int, batch_id: int = 1, **values: Any) -> None:
    of_job = (
        select(Result.image_id).join(Job, Job.id == Result.job_id).where(Job.batch_id == batch_id, Job.number == number)
    )
    with database.begin() as tx:
        tx.execute(update(Image).where(Image.id == of_job.scalar_subquery()).values(**values))


def change_result(database: Database, number: int, batch_id: int = 1, **values: Any) -> None:
    of_job = select(Job.id).where(Job.batch_id == batch_id, Job.number == number)
    with database.begin() as tx:
        tx.execute(update(Result).where(Result.job_id == of_job.scalar_subquery()).values(**values))


def set_time(path: Path, time: datetime) -> None:
    """When the file was written."""
    os.utime(path, (time.timestamp(), time.timestamp()))
