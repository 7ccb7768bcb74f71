"""The states of jobs, packs, batches and firings, and the moves that a job may make."""

from enum import StrEnum
from types import MappingProxyType
from typing import Final


class JobState(StrEnum):
    """Where a job stands. The last three are ends."""

    PENDING = "pending"  #: waits in the ledger
    QUEUED = "queued"  #: in a pack that waits for a worker
    RUNNING = "running"  #: in a pack that a worker has claimed; its row says ``queued`` on (``farm.job_states``)
    DONE = "done"  #: has exactly one result row
    FAILED = "failed"  #: permanent error, or attempts used up
    CANCELED = "canceled"


class PackState(StrEnum):
    QUEUED = "queued"  #: released; a message hints at it
    RUNNING = "running"  #: claimed, lease held
    FINISHED = "finished"  #: it was claimed, and every job of it has ended or gone back
    RETURNED = "returned"  #: given back by its worker
    EXPIRED = "expired"  #: its lease ran out
    CANCELED = "canceled"  #: its batch was canceled before a worker claimed it


class BatchState(StrEnum):
    STAGING = "staging"  #: its rows are being read; nothing of it is released
    OPEN = "open"  #: its jobs are released, by priority
    PAUSED = "paused"  #: nothing of it is released or begun; what renders is finished
    CANCELED = "canceled"


class FiringState(StrEnum):
    DUE = "due"  #: its time has come, or it is tried again when ``retry_at`` has
    SUBMITTING = "submitting"  #: a dispatcher reads the manifest, lease held
    DONE = "done"  #: has made exactly one batch, which was opened in the same transaction
    FAILED = "failed"  #: what was ordered cannot be submitted, or tries used up
    SKIPPED = "skipped"  #: was missed, and its schedule skips such


#: from → to: every move that ``farm/ledger.py`` makes, and no other; queued → running by the pack's row alone
JOB_MOVES: Final = MappingProxyType(
    {
        JobState.PENDING: frozenset({JobState.QUEUED, JobState.DONE, JobState.CANCELED}),
        JobState.QUEUED: frozenset({JobState.RUNNING, JobState.PENDING, JobState.CANCELED}),
        JobState.RUNNING: frozenset({JobState.DONE, JobState.PENDING, JobState.FAILED, JobState.CANCELED}),
        JobState.FAILED: frozenset({JobState.PENDING}),
        JobState.DONE: frozenset(),
        JobState.CANCELED: frozenset(),
    }
)


def may_move(old: JobState, new: JobState) -> bool:
    """Whether a job may go from one state to the other."""
    return new in JOB_MOVES[old]
