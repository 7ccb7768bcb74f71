"""Finished batches for the tests of `nightshift export`: a real ledger and real image files, made without rendering."""

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from typer.testing import CliRunner

from farm import batches, ledger
from farm.database import Database
from farm.image_store import ImageStore
from nightshift import app
from schemas.provenance import Environment
from schemas.records import ClaimedJob, FinishedImage, StagedJob, StoredImage
from schemas.spec import JobSpec
from schemas.written_spec import WrittenSpec
from tests.integration.ledger_farm import ENVIRONMENT, claimed_pack, new_ledger, new_worker
from tests.integration.stored_farm import PROVENANCE

Picture = Callable[[JobSpec], Image.Image]


def shapes(spec: JobSpec) -> Image.Image:
    """Large soft shapes, other ones for another seed."""
    coarse = np.random.default_rng(spec.seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((spec.width, spec.height), Image.Resampling.BICUBIC)


class ExportFarm:
    """A home folder with ledger and image store, and the command that runs in it."""

    def __init__(self, home: Path, database_url: str | None = None, images_url: str | None = None) -> None:
        self.home = home
        self._url = database_url or f"sqlite:///{home / 'ledger.sqlite3'}"
        self.store = ImageStore(images_url or str(home / "images"))
        home.mkdir(parents=True, exist_ok=True)
        self.database: Database = new_ledger(self._url)

    def batch(self, rows: Sequence[dict[str, Any]], meta: Sequence[dict[str, str]] = (), num_done: int | None = None,
              picture: Picture = shapes, environment: Environment = ENVIRONMENT) -> int:  # fmt: skip
        """A batch of these specs, of which the first ones are done."""
        specs = [JobSpec.parse({"seed": n, "width": 64, "height": 64, **row}) for n, row in enumerate(rows, 1)]
        batch_id = batches.create_batch(self.database, "cats", "tiny", 5)
        metas = [*meta, *({} for _ in range(len(specs) - len(meta)))]
        numbered = enumerate(zip(specs, metas, strict=True), 1)
        jobs = [StagedJob.of(n, WrittenSpec.of(spec), 0, meta) for n, (spec, meta) in numbered]
        ledger.stage_jobs(self.database, batch_id, jobs)
        batches.open_batch(self.database, batch_id)
        worker_id, num_left = new_worker(self.database), len(specs) if num_done is None else num_done
        while num_left:
            pack = claimed_pack(self.database, batch_id, worker_id, size=min(num_left, 100))
            images = [self._finished(job, picture) for job in pack.jobs]
            ledger.finish_jobs(self.database, pack, environment, images)
            num_left -= len(images)
        return batch_id

    def _finished(self, job: ClaimedJob, picture: Picture) -> FinishedImage:
        spec = JobSpec.from_json(job.spec)
        pixels, stream = picture(spec), io.BytesIO()
        pixels.save(stream, spec.output.format.upper())
        content = stream.getvalue()
        sha256 = hashlib.sha256(content).hexdigest()
        uri = self.store.put(content, sha256, spec.output.suffix)
        pixel_sha256 = hashlib.sha256(pixels.tobytes()).hexdigest()
        image = StoredImage(uri, sha256, pixel_sha256, len(content), spec.width, spec.height, spec.output.format)
        provenance = PROVENANCE.model_dump(mode="json")
        return FinishedImage(job.id, image, spec.digest, ENVIRONMENT.pair_fingerprint, provenance, 1, 1.0, 0.1)

    def variables(self) -> dict[str, str]:
        return {"NIGHTSHIFT_HOME": str(self.home), "NIGHTSHIFT_DATABASE_URL": self._url}

    def export(self, *arguments: object) -> dict[str, Any]:
        """What `nightshift export --json` answers. Raises what it raises."""
        command = ["export", *map(str, arguments), "--json"]
        outcome = CliRunner().invoke(app, command, env=self.variables(), catch_exceptions=True)
        if outcome.exception is not None and not isinstance(outcome.exception, SystemExit):
            raise outcome.exception
        assert outcome.exit_code == 0, outcome.output
        answer: dict[str, Any] = json.loads(outcome.stdout)
        return answer


def tree(folder: Path) -> dict[str, str]:
    """Every file below the folder, hidden ones too, with its sha256."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
