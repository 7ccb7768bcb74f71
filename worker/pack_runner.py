"""One pack from message to results: claim, prepare, render on the device thread, finish beside it, record.

Runs on Celery's pool threads, two at a time: while one pack renders, the next is claimed and tokenised, or the last one
finished. Exactly one thread, ``device``, touches the device.
"""

import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import Any, Final, NamedTuple, TypeVar

from farm import ledger, packs
from farm.database import Database
from farm.retries import Failure
from schemas.errors import (
    DeviceLostError,
    InputFileError,
    InvalidImageError,
    LeaseLostError,
    MessageError,
    SpecError,
    UnavailableError,
)
from schemas.messages import PackMessage
from schemas.provenance import Provenance, handoff_kind
from schemas.records import ClaimedJob, ClaimedPack, FinishedImage
from schemas.settings import Settings
from schemas.spec import JobSpec
from worker.embedding import Chunks, num_chunks
from worker.finishing import Finisher, Unfinished
from worker.forward_passes import split
from worker.inputs import InputFetcher, PassInputs, joined
from worker.lease_keeper import LeaseKeeper
from worker.pipelines import LoadedPair
from worker.rendering import RenderedPass, check_pair_has, render

log = logging.getLogger("nightshift.worker")
T = TypeVar("T")

#: Packs in hand at once: one renders, the other is prepared or finished.
NUM_PACK_THREADS: Final = 2
_NUM_FINISHERS: Final = 2
EXIT_DEVICE_LOST: Final = 70
_MAX_BACKOFF_SECONDS: Final = 10.0


class _DrainedError(Exception):
    """The worker is stopping, or its device is lost, and this pack has not begun: it goes back."""


@dataclass(frozen=True)
class _Pass:
    """One forward pass of a pack."""

    jobs: tuple[ClaimedJob, ...]
    specs: tuple[JobSpec, ...]
    chunks: Chunks
    inputs: PassInputs

    @property
    def job_ids(self) -> list[int]:
        return [job.id for job in self.jobs]


class _Prepared(NamedTuple):
    """A job on its way into a forward pass."""

    job: ClaimedJob
    spec: JobSpec
    chunks: Chunks
    inputs: PassInputs


class PackRunner:
    """Runs packs on one pinned pair. ``stopping`` lets packs in hand finish and gives back those not begun."""

    def __init__(self, database: Database, pair: LoadedPair, finisher: Finisher, inputs: InputFetcher,
                 leases: LeaseKeeper, settings: Settings) -> None:  # fmt: skip
        self.stopping = Event()
        self._device_lost = Event()
        self._database = database
        self._pair = pair
        self._finisher = finisher
        self._inputs = inputs
        self._leases = leases
        self._settings = settings
        self._device = ThreadPoolExecutor(1, "device")
        self._finishers = ThreadPoolExecutor(_NUM_FINISHERS, "finisher")

    @property
    def pair_fingerprint(self) -> str:
        return self._finisher.maker.environment.pair_fingerprint

    def close(self) -> None:
        self._device.shutdown()
        self._finishers.shutdown()

    def run(self, worker_id: str, content: dict[str, Any]) -> None:
        """What the Celery task does with one message. Never raises: whatever happens, the worker takes the next."""
        try:
            message = PackMessage.decode(content)
        except MessageError as error:
            log.warning("message refused: %s", error)
            return
        if self.stopping.is_set():
            return  # still queued in the ledger; it is published again
        try:
            pack = self._insist_until_stopping(lambda: self._claim(message, worker_id))
        except _DrainedError:
            return
        if pack is not None:
            with self._leases.keep(pack) as lost:
                self._run_claimed(pack, lost)

    def _claim(self, message: PackMessage, worker_id: str) -> ClaimedPack | None:
        return ledger.claim_pack(self._database, message.pack_id, worker_id, self._settings.lease_seconds)

    def _run_claimed(self, pack: ClaimedPack, lost: Event) -> None:
        try:
            self._render_pack(pack, lost)
        except (_DrainedError, LeaseLostError) as end:
            log.info("pack %s is let go: %s", pack.id, end or "the worker is stopping")
            self._give_back(pack)
        except Exception as error:  # the edge of a pack: one bad pack never takes the worker along
            log.exception("pack %s failed", pack.id)
            self._fail(pack, pack.jobs, error)

    def _render_pack(self, pack: ClaimedPack, lost: Event) -> None:
        """Queues all forward passes on the device at once, so that no other pack comes between them."""
        passes = self._passes(self._prepared(pack))
        begun: list[bool] = []
        futures = [self._device.submit(self._render_pass, pack, lost, one, begun) for one in passes]
        try:
            for one, future in zip(passes, futures, strict=True):
                self._take(pack, one, future)
        finally:
            for future in futures:
                future.cancel()

    def _prepared(self, pack: ClaimedPack) -> list[_Prepared]:
        """The jobs with what they start from. One that cannot be rendered fails: a picture or LoRA is missing, compel
        cannot read its prompt, the pair has no refiner. The others go on."""
        prepared = []
        for job in pack.jobs:
            try:
                prepared.append(self._prepared_job(job))
            except (InputFileError, SpecError) as error:
                self._fail(pack, [job], error)
        return prepared

    def _prepared_job(self, job: ClaimedJob) -> _Prepared:
        spec = JobSpec.from_json(job.spec)
        check_pair_has(self._pair, spec)
        inputs = self._insist_until_stopping(partial(self._inputs.fetch, spec))
        return _Prepared(job, spec, num_chunks(self._pair, spec), inputs)

    def _passes(self, prepared: Sequence[_Prepared]) -> list[_Pass]:
        specs, chunks = [one.spec for one in prepared], [one.chunks for one in prepared]
        groups = [[prepared[i] for i in group] for group in split(specs, chunks, self._settings.forward_pass_size)]
        return [
            _Pass(
                jobs=tuple(one.job for one in group),
                specs=tuple(one.spec for one in group),
                chunks=group[0].chunks,
                inputs=joined(one.inputs for one in group),
            )
            for group in groups
        ]

    def _render_pass(self, pack: ClaimedPack, lost: Event, one: _Pass, begun: list[bool]) -> tuple[RenderedPass, float]:
        """On the device thread. Returns the images and the seconds that they took."""
        if not begun:
            if self.stopping.is_set() or self._device_lost.is_set():
                raise _DrainedError
            # Noted before the device starts: a pack that kills its worker must be known as the one that ran.
            if not self._insist_until_stopping(lambda: packs.begin_rendering(self._database, pack.id, pack.worker_id)):
                raise LeaseLostError(f"pack {pack.id} was taken back or canceled before it began")
            begun.append(True)
        started = time.monotonic()
        try:
            rendered = render(self._pair, one.specs, stop=lost.is_set, inputs=one.inputs)
        except DeviceLostError:
            self._device_lost.set()  # here, on the device thread: the next pack in line must not be blamed
            raise
        return rendered, time.monotonic() - started

    def _take(self, pack: ClaimedPack, one: _Pass, future: "Future[tuple[RenderedPass, float]]") -> None:
        """Waits for one forward pass, then finishes and records its images while the device goes on."""
        try:
            rendered, seconds = future.result()
            finished = list(self._finishers.map(self._finish, self._unfinished(one, rendered, seconds)))
        except (_DrainedError, LeaseLostError):
            raise
        except Exception as error:  # of this forward pass alone; the others of the pack go on
            log.exception("a forward pass of pack %s failed", pack.id)
            self._fail(pack, one.jobs, error)
            return
        self._record(pack, finished)
        broken = [job for job, pixels in zip(one.jobs, rendered.images, strict=True) if pixels is None]
        if broken:
            self._fail(pack, broken, InvalidImageError("the image has NaN or infinite values"))

    def _unfinished(self, one: _Pass, rendered: RenderedPass, seconds: float) -> list[Unfinished]:
        provenance = Provenance(
            handoff=handoff_kind(one.specs[0]),
            forward_pass_size=len(one.jobs),
            base_steps=rendered.base_steps,
            refiner_steps=rendered.refiner_steps,
            handoff_sigma=rendered.handoff_sigma,
            prompt_chunks=one.chunks.base,
            refiner_prompt_chunks=one.chunks.refiner,
            watermark_bits=None,
        )
        images = zip(one.jobs, one.specs, rendered.images, strict=True)
        return [
            Unfinished(job, spec, pixels, provenance, seconds) for job, spec, pixels in images if pixels is not None
        ]

    def _finish(self, image: Unfinished) -> FinishedImage:
        """Waits for a full or refusing store: rendering it again would not make room."""
        return self._insist(lambda: self._finisher.finish(image))

    def _record(self, pack: ClaimedPack, finished: list[FinishedImage]) -> None:
        environment = self._finisher.maker.environment
        if finished:
            self._insist(lambda: ledger.finish_jobs(self._database, pack, environment, finished))

    def _fail(self, pack: ClaimedPack, jobs: Sequence[ClaimedJob], error: Exception) -> None:
        ids, failure = [job.id for job in jobs], Failure.of(error)
        try:
            self._insist(lambda: ledger.fail_jobs(self._database, pack, ids, failure, self._settings.max_attempts))
        except LeaseLostError as lost:
            log.info("%s", lost)
        if isinstance(error, DeviceLostError):
            log.error("the device is lost; this process ends, so that a fresh one takes its place")
            os._exit(EXIT_DEVICE_LOST)

    def _give_back(self, pack: ClaimedPack) -> None:
        """Where the ledger does not answer a worker that is stopping, the lease runs out instead."""
        with suppress(_DrainedError):
            self._insist_until_stopping(lambda: ledger.give_back_pack(self._database, pack))

    def _insist_until_stopping(self, step: Callable[[], T]) -> T:
        """As ``_insist``, for what nobody misses when the worker stops. Raises _DrainedError then."""
        return self._insist(step, gives_up=self.stopping)

    def _insist(self, step: Callable[[], T], gives_up: Event | None = None) -> T:
        """Repeats a step while ledger or store do not answer: what is rendered is kept until it can be recorded."""
        delay = 0.5
        while True:
            try:
                return step()
            except UnavailableError as error:
                if gives_up is not None and gives_up.is_set():
                    raise _DrainedError from error
                log.warning("%s; trying again in %.1f s", error, delay)
                time.sleep(delay)
                delay = min(delay * 2, _MAX_BACKOFF_SECONDS)
