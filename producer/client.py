"""The Python API: submit rows, wait for them, and take images as they finish. `nightshift submit` for programs.

    from producer import Client

    with Client() as client:
        batch = client.submit([{"prompt": "a lighthouse in a storm", "seed": 7}], pair="sdxl")
        for job in client.as_finished(batch):
            client.open_image(job).save(f"{job.number}.png")

Nothing is rendered here: workers do that (`nightshift up`). Where ledger and image store lie is said by the settings:
``NIGHTSHIFT_…`` variables and ``nightshift.toml``, or a ``Settings`` of one's own.
"""

import hashlib
import io
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self, Unpack

from PIL import Image

from farm import ledger
from farm.database import Database
from farm.image_store import read_image
from farm.recorded_images import Recorded, recorded_job
from farm.schema import ensure_schema
from producer import changes
from producer.manifests.counted_advice import CountedAdvice, Warned
from producer.manifests.manifest import read_manifest, read_rows
from producer.manifests.manifest_source import ManifestSource
from producer.questions.finished_jobs import finished_jobs
from producer.questions.job_results import JobResult, job_results
from producer.questions.patience import Patient, until_ended
from producer.questions.queries import BatchSummary, batch_summary, find_batch
from producer.submitting.first_tick import first_tick
from producer.submitting.submit import submit
from producer.submitting.submit_options import SubmitOptions, batch_request, given_options, read_options
from schemas.errors import InputError, NightshiftError, NotFoundError, StorageError, WaitTimeoutError
from schemas.settings import Settings, load_settings
from schemas.spec import JobSpec

_FORMATS: Final = ("PNG", "JPEG", "WEBP")


@dataclass(frozen=True)
class AcceptedBatch:
    """A batch that is in the ledger, whatever happens to this process.

    num_linked: of its jobs, those whose image existed: they are done.
    num_left_out, invalid_file: bad rows that ``skip_invalid`` left out, and where they are listed.
    warnings: what is unusual about its rows, each kind once.
    waits: why nothing of it begins yet: no farm runs here, or Redis does not answer. None where all is well. The batch
        is safe all the same: it is not to be submitted again.
    """

    id: int
    num_jobs: int
    num_linked: int
    num_left_out: int
    invalid_file: Path | None
    warnings: tuple[Warned, ...]
    waits: str | None


#: what names a batch: what ``submit`` or ``status`` returned, its number, or its name (the youngest of that name)
BatchLike = AcceptedBatch | BatchSummary | int | str


class Client:
    """A farm's ledger and image store, for programs. A context manager; or ``close`` it.

    Threads may share one: each call works by itself, with a connection of its own. An iterator that it returned belongs
    to one thread at a time. A process that was forked makes its own client. Every error that is raised on purpose is a
    ``NightshiftError``; while the ledger does not answer, what waits (``wait``, ``as_finished``) goes on waiting and
    logs it once to ``nightshift.client``, and what does not wait raises.
    """

    def __init__(self, settings: Settings | None = None, *, poll_seconds: float = 1.0) -> None:
        """``settings``: else those of the environment and ``nightshift.toml``. ``poll_seconds``: how often what waits
        asks the ledger; each time it reads one row, and the images that are new.

        Raises:
            SettingsError: a setting is unknown or malformed.
            UnavailableError: the ledger does not answer, or is of another version.
        """
        if not poll_seconds > 0:
            raise InputError(f"poll_seconds {poll_seconds}: it is more than 0")
        self.settings = settings or load_settings()
        self._poll_seconds = poll_seconds
        self._database = Database(self.settings.database_url)
        try:
            ensure_schema(self._database)
        except BaseException:
            self._database.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets the connections go. Batches go on."""
        self._database.close()

    def submit(
        self, rows: Iterable[Mapping[str, object] | JobSpec] | Path | str, **options: Unpack[SubmitOptions]
    ) -> AcceptedBatch:
        """Puts jobs into the ledger; workers that run start on them at once.

        rows: mappings with the values that a line of JSONL would have (``{"prompt": "…", "seed": 7, "refiner":
            {"start": 0.9}}``), ``JobSpec``s, or both, read one after another, so a generator of millions will do; or
            the path or URL of a manifest. Keys that are no field of a spec are kept as the job's ``meta``. A row
            without a seed gets one from its content.
        options: ``SubmitOptions``.

        Raises:
            ManifestError: bad rows, named by their number (from 1), column, value and reason; or no row at all.
            InputError: an option is wrong. In both cases nothing was enqueued.
            UnavailableError: the ledger or the image store went away. Its sentence says where the batch may have been
                accepted all the same.
        """
        options = given_options(options)
        reading = read_options(self.settings, options)
        if isinstance(rows, Path | str):
            manifest = ManifestSource.of(rows) if isinstance(rows, Path) else ManifestSource.parse(rows)
            found = read_manifest(manifest, reading)
        else:
            manifest, found = None, read_rows(rows, reading)
        request = batch_request(self.settings, manifest, options)
        advised = CountedAdvice(self.settings.model_pair(request.pair))
        done = submit(self._database, advised.passed(found), request)
        return AcceptedBatch(done.batch_id, done.num_jobs, done.num_linked, done.num_left_out, done.invalid_file,
                             tuple(advised.warnings), self._begin(done.batch_id))  # fmt: skip

    def _begin(self, batch_id: int) -> str | None:
        """One ordinary tick. The batch is accepted by now: no error may take its number away from the caller."""
        try:
            return first_tick(self._database, self.settings, batch_id)
        except NightshiftError as error:
            return str(error)

    def status(self, batch: BatchLike) -> BatchSummary:
        """The batch and its counters now. Raises NotFoundError."""
        if isinstance(batch, str):
            return find_batch(self._database, batch)
        return batch_summary(self._database, batch if isinstance(batch, int) else batch.id)

    def wait(self, batch: BatchLike, timeout: float | None = None) -> BatchSummary:
        """The counters when every job of it is done, failed or canceled. ``timeout``: seconds.

        A pair that no worker serves is waited for like any other; ``timeout`` ends that.

        Raises:
            WaitTimeoutError: it had not ended by then; it is a ``TimeoutError`` too. The batch goes on.
            NotFoundError: there is no such batch, or no more.
        """
        found = self.status(batch)
        patient = Patient(self._database, self._pause_until(found.id, timeout))
        *_, last = until_ended(patient, found.id)
        return last

    def _pause_until(self, batch_id: int, timeout: float | None) -> Callable[[], None]:
        deadline = None if timeout is None else time.monotonic() + timeout

        def pause() -> None:
            left = self._poll_seconds if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise WaitTimeoutError(f"batch {batch_id} has not ended after {timeout:g} s; it goes on")
            time.sleep(min(left, self._poll_seconds))

        return pause

    def results(self, batch: BatchLike) -> Iterator[JobResult]:
        """Every job of the batch as it is now, in the order of its rows, read a page at a time."""
        return job_results(self._database, self.status(batch).id)

    def as_finished(self, batch: BatchLike) -> Iterator[JobResult]:
        """The jobs that are done, each once, in the order in which they ended, until the batch has ended.

        Those that were done before come first. Jobs that fail are not among them: ``results`` has those. None is missed
        or given twice by one iterator, whatever ends beside what; a new one begins with the first image again.
        """
        found = self.status(batch)
        return finished_jobs(Patient(self._database, self._pause_until(found.id, None)), found.id)

    def read_image(self, job: JobResult) -> bytes:
        """The bytes of the job's image file, with all its metadata.

        Raises:
            NotFoundError: the job has no image.
            StorageError: the image store does not give it, or gives other bytes than were recorded.
        """
        if job.uri is None:
            raise NotFoundError(f"job {job.name} is {job.state} and has no image")
        content = read_image(job.uri)
        if hashlib.sha256(content).hexdigest() != job.sha256:
            raise StorageError(f"{job.uri} is no longer the file that was recorded for job {job.name}")
        return content

    def open_image(self, job: JobResult) -> Image.Image:
        """The job's image, read and decoded, as Pillow has it. Raises as ``read_image``."""
        with closing(Image.open(io.BytesIO(self.read_image(job)), formats=_FORMATS)) as image:
            image.load()
            return image.copy()

    def provenance(self, job: JobResult) -> Recorded:
        """How the job's image was made: its spec, the steps that ran, weights, versions, device.

        Raises:
            NotFoundError: the job has no image.
        """
        return recorded_job(self._database, job.batch_id, job.number)

    def cancel(self, batch: BatchLike, *, now: bool = False) -> BatchSummary | None:
        """Cancels what waits; what renders is finished, unless ``now``. None where the batch was never opened, and is
        discarded."""
        return changes.cancel(self._database, self.status(batch), now=now)

    def pause(self, batch: BatchLike) -> BatchSummary:
        """Begins nothing more of it; what renders is finished. Raises NotFoundError for one that is not open."""
        return changes.pause(self._database, self.status(batch).id)

    def resume(self, batch: BatchLike) -> BatchSummary:
        """Goes on with a paused batch. Raises NotFoundError for one that is not paused."""
        return changes.resume(self._database, self.status(batch).id)

    def retry(self, batch: BatchLike) -> int:
        """Gives its failed jobs another try, with all attempts anew. Returns how many. Raises NotFoundError for a batch
        that is not open."""
        return ledger.retry_failed(self._database, self.status(batch).id)
