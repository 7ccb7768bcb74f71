"""What the ledger says of jobs, batches and packs, and whether it can be so. Pure: `nightshift verify` judges by it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from producer.upkeep.finding import RESTORE_LEDGER, Finding
from schemas.digest import sha256_hex
from schemas.states import BatchState, JobState, PackState

#: those that a row of ``jobs`` can say (``farm.job_states``)
_WRITTEN: Final = frozenset(JobState) - {JobState.RUNNING}
#: of a pack that holds what is queued
_LIVE: Final = (PackState.QUEUED, PackState.RUNNING)
#: of a pack that holds the job, in which an ended job may not be
_NOT_YET_ENDED: Final = {
    JobState.DONE: (PackState.QUEUED,),
    JobState.FAILED: (PackState.QUEUED,),
    JobState.CANCELED: (PackState.QUEUED, PackState.RUNNING),
}


@dataclass(frozen=True)
class RecordedJob:
    """A row of ``jobs`` with its pack's state and what its result row says; None where there is no such row. ``state``:
    as the row says it."""

    id: int
    batch_id: int
    number: int
    state: str
    spec: str
    spec_digest: str
    pack_id: str | None
    pack_state: str | None
    image_id: int | None
    image_spec_digest: str | None
    #: what its result names and is not there: environment, worker, pack
    lacking: str = ""

    @property
    def name(self) -> str:
        return f"job {self.batch_id}/{self.number}"


@dataclass(frozen=True)
class CountedBatch:
    """A batch, its counters, and how many jobs it has in which state, by their packs too."""

    id: int
    state: str
    counters: Mapping[JobState, int]
    num_jobs: Mapping[str, int]


@dataclass(frozen=True)
class LivePack:
    """A pack that is queued, running, or in no state that there is. ``num_jobs``: those that it holds."""

    id: str
    batch_id: int
    state: str
    lease_expires_at: datetime | None
    num_jobs: int


def job_findings(job: RecordedJob) -> Iterator[Finding]:
    """Whether its state is one, and its pack and its result are what that state asks for."""
    if (sentence := _state_flaw(job)) is not None:
        yield Finding(job.name, "job_state", f"{sentence}; {RESTORE_LEDGER}")
    if job.state == JobState.DONE and job.image_id is None:
        yield Finding(job.name, "no_result", f"is done and has no result row; {RESTORE_LEDGER}")
    if job.state != JobState.DONE and job.image_id is not None:
        yield Finding(job.name, "result", f"is {job.state} and has a result row; {RESTORE_LEDGER}")
    if job.image_id is not None and job.image_spec_digest is None:
        yield Finding(
            job.name, "no_image", f"its result names image {job.image_id}, which has no row; {RESTORE_LEDGER}"
        )
    if job.lacking:
        yield Finding(
            job.name, "no_row", f"there is no row of its result's {' and '.join(job.lacking.split())}; {RESTORE_LEDGER}"
        )
    if sha256_hex(job.spec) != job.spec_digest:
        yield Finding(job.name, "spec", f"its spec is not the one of its digest; {RESTORE_LEDGER}")
    elif job.image_spec_digest not in (None, job.spec_digest):
        yield Finding(job.name, "image_spec", f"its image was made by another spec; {RESTORE_LEDGER}")


def _state_flaw(job: RecordedJob) -> str | None:
    if job.state not in _WRITTEN:
        return f"its state {job.state!r} is none that a job's row can have"
    state = JobState(job.state)
    if job.pack_id is not None and job.pack_state is None:
        return f"is {state}, and there is no pack {job.pack_id}"
    if state == JobState.PENDING:
        return None if job.pack_id is None else f"is pending and held by pack {job.pack_id}"
    if state == JobState.QUEUED:
        return _pack_flaw(job)
    if job.pack_state in _NOT_YET_ENDED.get(state, ()):
        return f"is {state}, and its pack {job.pack_id} is {job.pack_state}"
    return None


def _pack_flaw(job: RecordedJob) -> str | None:
    if job.pack_id is None:
        return f"is {job.state} and in no pack"
    return None if job.pack_state in _LIVE else f"is {job.state}, and its pack {job.pack_id} is {job.pack_state}"


def batch_findings(batch: CountedBatch) -> Iterator[Finding]:
    """Whether its state is one, and its counters are right."""
    name = f"batch {batch.id}"
    if batch.state not in list(BatchState):
        sentence = f"its state {batch.state!r} is none that a batch can have; {RESTORE_LEDGER}"
        yield Finding(name, "batch_state", sentence)
    for state, counter in batch.counters.items():
        if counter != (num_jobs := batch.num_jobs.get(state, 0)):
            sentence = f"num_{state} is {counter:,}, and {num_jobs:,} of its jobs are {state}; {RESTORE_LEDGER}"
            yield Finding(name, "counters", sentence)
    yield from _batch_notes(batch, name)


def _batch_notes(batch: CountedBatch, name: str) -> Iterator[Finding]:
    cancel = f"`nightshift cancel {batch.id}`"
    if batch.state == BatchState.STAGING:
        sentence = f"was never opened; where its submit no longer runs, {cancel} discards it"
        yield Finding(name, "staging", sentence, is_note=True)
    left = sum(batch.num_jobs.get(state, 0) for state in (JobState.PENDING, JobState.QUEUED))
    if batch.state == BatchState.CANCELED and left:
        sentence = f"is canceled, and {left:,} of its jobs are not yet; a dispatcher does it, or {cancel}"
        yield Finding(name, "unswept", sentence, is_note=True)


def pack_finding(pack: LivePack, lost_before: datetime, dispatcher_lives: bool) -> Finding | None:
    """``lost_before``: a lease that ran out earlier should have been noticed, if a dispatcher runs."""
    name = f"pack {pack.id} of batch {pack.batch_id}"
    if pack.state not in list(PackState):
        sentence = f"its state {pack.state!r} is none that a pack can have; {RESTORE_LEDGER}"
        return Finding(name, "pack_state", sentence)
    if not pack.num_jobs:
        return Finding(name, "empty_pack", f"is {pack.state}, and holds no job; {RESTORE_LEDGER}")
    expired = pack.state == PackState.RUNNING and (pack.lease_expires_at or lost_before) < lost_before
    if expired and not dispatcher_lives:
        since = f"{pack.lease_expires_at:%Y-%m-%d %H:%M} UTC"
        sentence = f"its lease ran out {since} and no dispatcher took it back; `nightshift up` or `dispatcher` does"
        return Finding(name, "lost_pack", sentence)
    return None


def lost_before(now: datetime, lease_seconds: float) -> datetime:
    """A lease that ran out one lease ago is lost: so long a dispatcher waits after its start."""
    return now - timedelta(seconds=lease_seconds)
