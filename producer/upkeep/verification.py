"""Checks the whole farm, or one batch: the ledger against itself, and every image file against its row.

Files are read by a few threads (hashing and decoding release the GIL), a few at a time, so that memory grows neither
with the batch nor with what is found.
"""

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

from PIL import Image
from pydantic import ValidationError

from farm.database import Database
from farm.leases import ledger_time
from farm.stored_files import stored_files
from producer.upkeep import verified_rows
from producer.upkeep.finding import RESTORE_LEDGER, Finding
from producer.upkeep.orphans import OrphanCounts, Orphans
from producer.upkeep.recorded_file import RecordedFile, file_finding, watermark_reader
from producer.upkeep.recorded_jobs import RecordedJob, batch_findings, job_findings, lost_before, pack_finding
from schemas.provenance import Provenance
from schemas.settings import Settings
from schemas.spec import JobSpec

_MAX_THREADS: Final = 16
_WAITING_PER_THREAD: Final = 4


@dataclass
class Counts:
    """What was checked so far."""

    num_jobs: int = 0
    num_images: int = 0
    num_bytes: int = 0
    num_findings: int = 0
    orphans: OrphanCounts = field(default_factory=OrphanCounts)


class Verification:
    """One run. ``tell`` is called again and again, with ``counts`` in between."""

    def __init__(self, database: Database, settings: Settings, tell: Callable[[Counts], None]) -> None:
        self._database = database
        self._settings = settings
        self._tell = tell
        self.counts = Counts()

    def of_batch(self, batch_id: int) -> Iterator[Finding]:
        """Its row, jobs, packs and images.

        Raises:
            UnavailableError: the ledger or a whole image store does not answer.
        """
        yield from self._counted(self._with_files_read(self._batch(batch_id, batch_alone=True)))

    def of_everything(self, *, clean: bool) -> Iterator[Finding]:
        """Every batch, and every file of the image store. Raises as ``of_batch``."""
        yield from self._counted(self._everything(clean=clean))

    def _counted(self, findings: Iterator[Finding]) -> Iterator[Finding]:
        for finding in findings:
            self.counts.num_findings += not finding.is_note
            yield finding

    def _everything(self, *, clean: bool) -> Iterator[Finding]:
        for flaw in verified_rows.ledger_flaws(self._database):
            yield Finding("ledger", "ledger", f"{flaw}; restore it from a backup")
        batch_ids = verified_rows.batch_ids(self._database)
        of_batches = (found for batch_id in batch_ids for found in self._batch(batch_id, batch_alone=False))
        yield from self._with_files_read(of_batches)
        for image in verified_rows.unused_images(self._database):
            yield Finding(f"image {image.id}", "unused_image", f"{image.uri} has no result; {RESTORE_LEDGER}")
        for job_id in verified_rows.lone_results(self._database):
            yield Finding(f"result {job_id}", "no_job", f"there is no row of its job; {RESTORE_LEDGER}")
        now, files = ledger_time(self._database), stored_files(self._settings.images_url)
        orphans = Orphans(self._database, files, now, clean=clean)
        self.counts.orphans = orphans.counts
        yield from orphans.findings()

    def _batch(self, batch_id: int, *, batch_alone: bool) -> Iterator[Finding | RecordedFile]:
        batch = verified_rows.counted_batch(self._database, batch_id)
        if batch is None:  # discarded since it was listed
            return
        yield from batch_findings(batch)
        yield from self._packs(batch_id)
        for row in verified_rows.jobs(self._database, batch_id, batch_alone=batch_alone):
            self.counts.num_jobs += 1
            self._tell(self.counts)
            yield from _job(row)

    def _packs(self, batch_id: int) -> Iterator[Finding]:
        dispatcher_lives = verified_rows.has_dispatcher(self._database)
        lost = lost_before(ledger_time(self._database), self._settings.lease_seconds)
        judged = (
            pack_finding(pack, lost, dispatcher_lives) for pack in verified_rows.live_packs(self._database, batch_id)
        )
        yield from filter(None, judged)

    def _with_files_read(self, found: Iterable[Finding | RecordedFile]) -> Iterator[Finding]:
        """The findings as they are, and those of the files that are named among them."""
        num_threads = min(os.cpu_count() or 1, _MAX_THREADS)
        read_watermark = watermark_reader()
        unread = False
        waiting: deque[tuple[RecordedFile, Future[Finding | None]]] = deque()
        with _reading_threads(num_threads) as pool:
            for item in found:
                if isinstance(item, Finding):
                    yield item
                    continue
                unread = unread or (read_watermark is None and item.watermark_bits is not None)
                waiting.append((item, pool.submit(file_finding, item, read_watermark)))
                if len(waiting) > num_threads * _WAITING_PER_THREAD:
                    yield from self._read(*waiting.popleft())
            while waiting:
                yield from self._read(*waiting.popleft())
        if unread:
            yield _UNREAD_WATERMARKS

    def _read(self, file: RecordedFile, found: "Future[Finding | None]") -> Iterator[Finding]:
        finding = found.result()
        self.counts.num_images += 1
        self.counts.num_bytes += file.size_bytes
        self._tell(self.counts)
        if finding is not None:
            others = verified_rows.num_jobs_of(self._database, file.image_id) - 1
            yield replace(finding, subject=f"{file.name} and {others:,} more with its image") if others else finding


_UNREAD_WATERMARKS: Final = Finding(
    "watermarks", "unread", "were not read: that takes NumPy and OpenCV, which the extra `worker` brings",
    is_note=True,
)  # fmt: skip


def _job(row: Any) -> Iterator[Finding | RecordedFile]:
    job = RecordedJob(**{name: getattr(row, name) for name in RecordedJob.__dataclass_fields__})
    yield from job_findings(job)
    if row.uri is not None and row.is_first:
        yield _recorded_file(row, job.name)


def _recorded_file(row: Any, name: str) -> Finding | RecordedFile:
    columns = ("image_id", "uri", "sha256", "pixel_sha256", "size_bytes", "width", "height", "format")
    try:
        lossless = JobSpec.from_json(row.spec).output.lossless
        watermark_bits = Provenance.model_validate_json(row.provenance).watermark_bits
    except ValidationError as error:
        reason = error.errors(include_url=False)[0]["msg"]
        sentence = f"its spec or provenance is none that this version can read: {reason}; {RESTORE_LEDGER}"
        return Finding(name, "provenance", sentence)
    image = {column: getattr(row, column) for column in columns}
    return RecordedFile(name=name, **image, lossless=lossless, watermark_bits=watermark_bits)


@contextmanager
def _reading_threads(num_threads: int) -> Iterator[ThreadPoolExecutor]:
    """What Pillow warns of is set here, once, for warnings are the whole process's and not a thread's."""
    pool = ThreadPoolExecutor(num_threads, "verify")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it thinks of odd EXIF
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield pool
    finally:
        pool.shutdown(cancel_futures=True)
