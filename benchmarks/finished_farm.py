"""A farm whose images are all there, made in bulk and without rendering: for what reads ledger and image store."""

import hashlib
import random
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import insert

from farm.database import Database
from farm.schema import upgrade
from schemas.digest import sha256_hex
from schemas.spec import JobSpec
from schemas.states import BatchState, JobState, PackState
from schemas.tables import Batch, EnvironmentRow, Image, Job, Pack, Result, Worker

_CHUNK = 5_000
_ENVIRONMENT = {
    "pair": "sdxl", "pair_fingerprint": "f" * 64, "base": "stabilityai/stable-diffusion-xl-base-1.0",
    "base_revision": None, "base_hash": "b" * 10, "refiner": None, "refiner_revision": None, "refiner_hash": None,
    "license": "CreativeML Open RAIL++-M", "versions": {"nightshift": "0"}, "device": "cpu", "dtype": "float32",
    "attention_backend": "sdpa",
}  # fmt: skip
_PROVENANCE = {
    "handoff": "none", "forward_pass_size": 1, "base_steps": 40, "refiner_steps": 0, "handoff_sigma": None,
    "prompt_chunks": 1, "refiner_prompt_chunks": 0, "watermark_bits": 48, "vae_float32_retry": False,
}  # fmt: skip


@dataclass(frozen=True)
class Stored:
    """A farm of so many images. ``files``: the image store."""

    home: Path
    files: Path
    num_images: int
    num_bytes: int


def finished_farm(folder: Path, num_images: int, image_bytes: int, prompt: str = "a photo of a red fox",
                  num_files: int | None = None) -> Stored:  # fmt: skip
    """A ledger with one finished batch, and its files of random bytes: in ``home`` below the folder. ``num_files``: so
    many of the images are files, and the others further names of theirs; None: all are files."""
    home, store = folder / "home", folder / "home" / "images"
    database = Database(f"sqlite:///{home / 'ledger.sqlite3'}")
    upgrade(database)
    _write_beginning(database, num_images)
    files = Files(store, image_bytes, num_files)
    for first in range(0, num_images, _CHUNK):
        numbers = range(first + 1, min(first + _CHUNK, num_images) + 1)
        _write_rows(database, files, [JobSpec(prompt=f"{prompt} {n}", seed=n) for n in numbers])
    database.close()
    return Stored(home, store, num_images, num_images * image_bytes)


class Files:
    """Makes the image store. ``num_files``: as ``finished_farm`` has it."""

    def __init__(self, store: Path, num_bytes: int, num_files: int | None) -> None:
        self.num_bytes = num_bytes
        self._store = store
        self._num_files = num_files
        self._linked: list[tuple[Path, str]] = []

    def put(self, number: int) -> tuple[Path, str]:
        """The image's path and its sha256. Numbers come from 1 on, one after another."""
        if self._num_files is not None and number > self._num_files:
            original, sha256 = self._linked[number % self._num_files]
            path = self._path(sha256_hex(str(number)))
            path.hardlink_to(original)
            return path, sha256
        content = random.Random(number).randbytes(self.num_bytes)
        sha256 = hashlib.sha256(content).hexdigest()
        path = self._path(sha256)
        path.write_bytes(content)
        if self._num_files is not None:
            self._linked.append((path, sha256))
        return path, sha256

    def _path(self, name: str) -> Path:
        folder = self._store / name[:2] / name[2:4]
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{name}.png"


def _write_beginning(database: Database, num_images: int) -> None:
    with database.begin() as tx:
        counters = {f"num_{state}": 0 for state in JobState} | {"num_done": num_images}
        tx.execute(insert(Batch), {"id": 1, "name": "bench", "pair": "sdxl", "state": BatchState.OPEN, "priority": 5,
                                   "created_at": tx.now, **counters})  # fmt: skip
        tx.execute(insert(EnvironmentRow), {"digest": "e" * 64, "content": _ENVIRONMENT})
        tx.execute(insert(Worker), {"id": "w" * 32, "host": "bench", "process_id": 1, "device": "cpu", "pair": "sdxl",
                                    "state": "stopped", "started_at": tx.now, "seen_at": tx.now})  # fmt: skip
        tx.execute(insert(Pack), {"id": "p" * 32, "batch_id": 1, "pair": "sdxl", "pack_key": "k",
                                  "state": PackState.FINISHED, "num_jobs": 1, "released_at": tx.now})  # fmt: skip


def _write_rows(database: Database, files: Files, specs: list[JobSpec]) -> None:
    """The seeds are the jobs' numbers, and their ids."""
    images = [_image(files, spec) for spec in specs]
    jobs = [{"id": spec.seed, "batch_id": 1, "number": spec.seed, "spec": spec.canonical, "spec_digest": spec.digest,
             "repeat": 0, "pack_key": spec.pack_key, "meta": {"category": "animals"}, "state": JobState.DONE}
            for spec in specs]  # fmt: skip
    made = {"environment_digest": "e" * 64, "provenance": _PROVENANCE, "worker_id": "w" * 32, "pack_id": "p" * 32,
            "attempt": 1, "render_seconds": 1.0, "finish_seconds": 0.1}  # fmt: skip
    with database.begin() as tx:
        tx.execute(insert(Job), jobs)
        tx.execute(insert(Image), [{**image, "created_at": tx.now} for image in images])
        tx.execute(
            insert(Result),
            [{**made, "job_id": n, "image_id": n, "finished_at": tx.now} for n in (spec.seed for spec in specs)],
        )


def _image(files: Files, spec: JobSpec) -> dict[str, object]:
    path, sha256 = files.put(spec.seed)
    return {"id": spec.seed, "uri": path.as_uri(), "sha256": sha256, "pixel_sha256": sha256_hex(sha256),
            "size_bytes": files.num_bytes, "width": spec.width, "height": spec.height, "format": "png",
            "spec_digest": spec.digest, "pair_fingerprint": "f" * 64}  # fmt: skip
