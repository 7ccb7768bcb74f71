"""One pack from message to results: claim, prepare, render on the device thread, finish beside it, record.

Runs on Celery's pool threads, two at a time: while one pack renders, the next is claimed and tokenised, or the last one
finished. Exactly one thread, ``device``, touches the device.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass
from threading import Event
from typing import Any, Final, TypeVar

from farm import ledger, packs
from farm.database import Database
from farm.logs import about
from farm.retries import Failure
from schemas.errors import DeviceLostError, InputFileError, InvalidImageError, LeaseLostError, SpecError
from schemas.messages import PackMessage
from schemas.provenance import Provenance, handoff_kind
from schemas.records import ClaimedJob, ClaimedPack, FinishedImage
from schemas.settings import Settings
from schemas.spec import JobSpec
from worker.device_process.claiming import Claimer
from worker.device_process.device_thread import DeviceThread, PassOutcome
from worker.device_process.hands import Hands
from worker.device_process.insisting import insist
from worker.device_process.isolation import Isolation
from worker.device_process.lease_keeper import LeaseKeeper
from worker.device_process.metrics import PackTimes, WorkerMetrics
from worker.device_process.preparing import Pass, PreparedJob, Preparer
from worker.device_process.stopping import DrainedError, Stopping
from worker.image_files.finishing import Finisher, Unfinished
from worker.passes.inputs import PassInputs
from worker.passes.rendering import RenderedPass

log = logging.getLogger("nightshift.worker")
T = TypeVar("T")

_NUM_FINISHERS: Final = 2
#: When the device is lost, the pack that was rendered before may still be recorded.
_LAST_RECORDING_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Stages:
    """What a pack goes through, and where that is noted."""

    preparer: Preparer
    device: DeviceThread
    finisher: Finisher
    metrics: WorkerMetrics


class PackRunner:
    """Runs packs on one pinned pair, until ``stopping``.

    device_lost: ends the process, with the sentence that says why. The pack that was rendered is left as it is: whoever
    finds the process dead gives it back.
    """

    def __init__(self, database: Database, stages: Stages, leases: LeaseKeeper, settings: Settings,
                 device_lost: Callable[[str], None]) -> None:  # fmt: skip
        self.stopping = Stopping(settings.stop_seconds)
        self.hands = Hands()
        self._isolation = Isolation(self.stopping.gently)
        self._database = database
        self._stages = stages
        self._leases = leases
        self._max_attempts = settings.max_attempts
        self._device_lost = device_lost
        self._claimer = Claimer(database, leases.worker_id, settings.lease_seconds, settings.queued_packs_per_worker)
        self._finishers = ThreadPoolExecutor(_NUM_FINISHERS, "finisher")

    def close(self) -> None:
        self._stages.device.close()
        self._finishers.shutdown()

    def run(self, content: dict[str, Any]) -> None:
        """What the Celery task does with one message. Never raises: whatever happens, the worker takes the next."""
        with self.hands.holding():
            message = self._claimer.message(content)
            if message is None or self.stopping.gently.is_set():
                return  # a pack that is still queued in the ledger is published again
            with suppress(DrainedError), self._isolation.together():
                self._run_claimed(message)

    def _run_claimed(self, message: PackMessage) -> None:
        pack = self._insist_until_stopping(lambda: self._claimer.claim(message))
        if pack is not None:
            ids = [job.id for job in pack.jobs]
            with about(batch=pack.batch_id, pack=pack.id, jobs=ids), self._leases.keep(pack) as lost:
                self._run_pack(pack, lost)

    def _run_pack(self, pack: ClaimedPack, lost: Event) -> None:
        times = PackTimes()
        try:
            self._render_pack(pack, lost, times)
        except DeviceLostError as error:
            self._stages.metrics.failed(error.code, len(pack.jobs))
            self.stopping.gently.set()  # nothing more is claimed
            self.hands.wait_for_others(_LAST_RECORDING_SECONDS)
            self._device_lost(str(error))
        except (DrainedError, LeaseLostError) as end:
            stopped = self.stopping.at_once.is_set()
            log.info("pack %s is let go: %s", pack.id, "the worker is stopping" if stopped else end)
            if isinstance(end, LeaseLostError) and not stopped:
                self._stages.metrics.lease_lost()
            self._give_back(pack)
        except Exception as error:  # the edge of a pack: one bad pack never takes the worker along
            log.exception("pack %s failed", pack.id)
            self._fail(pack, pack.jobs, error)
        finally:
            lost.set()  # whatever ended the pack, the device renders no more of it
            self._stages.metrics.pack_seconds(times.seconds)
            if "render" in times.seconds:
                self._claimer.note_rendered(times.seconds["render"])

    def _render_pack(self, pack: ClaimedPack, lost: Event, times: PackTimes) -> None:
        def begin() -> None:
            times.begun()
            self._begin(pack)

        with self._place(pack):
            with times.stage("prepare"):
                passes = self._stages.preparer.passes(self._prepared(pack))
            if not passes:
                return
            times.submitted()
            for outcome in self._stages.device.rendered(passes, begin, lambda: self._must_stop(lost)):
                times.add("render", outcome.seconds)
                self._take(pack, outcome, times)

    @contextmanager
    def _place(self, pack: ClaimedPack) -> Iterator[None]:
        """A suspect has the process to itself from before it is prepared, and its attempt begins there."""
        if not pack.is_suspect:
            yield
            return
        with self._isolation.alone():
            self._begin(pack)
            yield

    def _must_stop(self, lost: Event) -> bool:
        return lost.is_set() or self.stopping.at_once.is_set()

    def _prepared(self, pack: ClaimedPack) -> list[PreparedJob]:
        """The jobs with what they start from. One that cannot be rendered fails: a picture or LoRA is missing, compel
        cannot read its prompt, the pair has no refiner. The others go on."""
        prepared = []
        for job in pack.jobs:
            try:
                prepared.append(self._stages.preparer.prepared(job, self._fetched))
            except (InputFileError, SpecError) as error:
                self._fail(pack, [job], error)
        return prepared

    def _fetched(self, spec: JobSpec) -> PassInputs:
        return self._insist_until_stopping(lambda: self._stages.preparer.inputs.fetch(spec))

    def _begin(self, pack: ClaimedPack) -> None:
        """On the device thread, noted before the device starts: a pack that kills its worker must be known as the one
        that ran."""
        if self.stopping.gently.is_set():
            raise DrainedError("the worker is stopping")
        if not self._insist_until_stopping(lambda: packs.begin_rendering(self._database, pack.id, pack.worker_id)):
            raise LeaseLostError(f"pack {pack.id} may not begin: taken back, canceled, paused, or its hours are over")

    def _take(self, pack: ClaimedPack, outcome: PassOutcome, times: PackTimes) -> None:
        """Finishes and records the images of one forward pass while the device goes on."""
        one, result = outcome.one, outcome.result
        if not isinstance(result, RenderedPass):
            self._fail(pack, one.jobs, result)
            return
        with times.stage("finish"):
            finished = self._finished(_unfinished(one, result, outcome.seconds))
        with times.stage("record"):
            self._record(pack, finished)
        for job, picture in zip(one.jobs, result.pictures, strict=True):
            if picture.fault:
                self._fail(pack, [job], InvalidImageError(picture.fault))

    def _finished(self, images: Sequence[Unfinished]) -> list[FinishedImage]:
        """Each with a copy of the context, for what is logged about it: one may be entered by one thread alone."""
        contexts = [copy_context() for _ in images]
        return list(self._finishers.map(lambda context, image: context.run(self._finish, image), contexts, images))

    def _finish(self, image: Unfinished) -> FinishedImage:
        """Waits for a full or refusing store: rendering it again would not make room."""
        return self._insist(lambda: self._stages.finisher.finish(image))

    def _record(self, pack: ClaimedPack, finished: list[FinishedImage]) -> None:
        environment = self._stages.finisher.maker.environment
        if finished:
            self._insist(lambda: ledger.finish_jobs(self._database, pack, environment, finished))
            self._stages.metrics.images(len(finished))

    def _fail(self, pack: ClaimedPack, jobs: Sequence[ClaimedJob], error: Exception) -> None:
        ids, failure = [job.id for job in jobs], Failure.of(error)
        with about(jobs=ids):
            log.warning("%d jobs of pack %s failed: %s", len(ids), pack.id, failure.sentence)
        try:
            self._insist(lambda: ledger.fail_jobs(self._database, pack, ids, failure, self._max_attempts))
            self._stages.metrics.failed(failure.code, len(ids))
        except LeaseLostError as lost:
            log.info("%s", lost)

    def _give_back(self, pack: ClaimedPack) -> None:
        """Where the ledger does not answer a worker that is stopping, the lease runs out instead."""
        num_jobs = self._insist_until_stopping(lambda: ledger.give_back_pack(self._database, pack))
        self._stages.metrics.given_back(num_jobs)

    def _insist_until_stopping(self, step: Callable[[], T]) -> T:
        """For what nobody misses when the worker stops. Raises DrainedError then."""
        return insist(step, self.stopping.gently)

    def _insist(self, step: Callable[[], T]) -> T:
        """For what was rendered: a worker that stops gently keeps it, one that stops at once raises DrainedError."""
        return insist(step, self.stopping.at_once)


def _unfinished(one: Pass, rendered: RenderedPass, seconds: float) -> list[Unfinished]:
    provenance = Provenance(
        handoff=handoff_kind(one.specs[0]),
        forward_pass_size=len(one),
        base_steps=rendered.base_steps,
        refiner_steps=rendered.refiner_steps,
        handoff_sigma=rendered.handoff_sigma,
        prompt_chunks=one.chunks.base,
        refiner_prompt_chunks=one.chunks.refiner,
        watermark_bits=None,
        compile_mode=rendered.compile_mode,
    )
    return [
        Unfinished(
            made.job,
            made.spec,
            pixels,
            provenance.model_copy(update={"vae_float32_retry": picture.vae_float32_retry}),
            seconds,
        )
        for made, picture in zip(one.prepared, rendered.pictures, strict=True)
        if (pixels := picture.pixels) is not None
    ]
