"""What becomes of a job after its pack failed: pure policy, for errors (worker) and expired leases (dispatcher)."""

import traceback
from dataclasses import dataclass
from typing import Final, Self

from farm.secrets import without_secrets
from schemas.errors import NightshiftError
from schemas.printable import printable
from schemas.states import JobState

#: Of a long traceback the end is kept: it tells what happened, and where.
_TRACEBACK_CHARACTERS: Final = 8_000
_FIRST_WAIT_SECONDS: Final = 2.0
_MAX_WAIT_SECONDS: Final = 300.0


@dataclass(frozen=True)
class Failure:
    """Why a pack, or one job of it, did not become images.

    ``is_of_the_job``: the job asks for what cannot be, whoever shares its pack, so there is nobody else to suspect.
    ``is_of_the_worker``: the process died, of anything in its hands, so it counts against a job that had it to itself.
    ``traceback``: where it happened; None where no exception tells, as with a worker that died.
    """

    code: str
    sentence: str
    retryable: bool
    is_of_the_job: bool = False
    is_of_the_worker: bool = False
    traceback: str | None = None

    @classmethod
    def death(cls, sentence: str) -> Self:
        """Of a worker process, by a signal or a lease that ran out."""
        return cls("worker_died", sentence, retryable=True, is_of_the_worker=True)

    def is_blamed_on(self, num_jobs: int, *, had_the_worker: bool) -> bool:
        """Whether there is nobody else to suspect than a job, from a pack of so many. ``had_the_worker``: to itself, as
        an isolated one has from when its attempt begins."""
        return self.is_of_the_job or (num_jobs == 1 and (had_the_worker or not self.is_of_the_worker))

    @classmethod
    def of(cls, error: Exception) -> Self:
        """What the error quotes may be anything; no database takes a lone surrogate, and PostgreSQL no NUL."""
        lines = without_secrets("".join(traceback.format_exception(error))).split("\n")
        where = "\n".join(map(printable, lines))[-_TRACEBACK_CHARACTERS:]
        if isinstance(error, NightshiftError):
            return cls(error.code, printable(str(error)), error.retryable, error.is_of_the_job, traceback=where)
        sentence = printable(without_secrets(f"{type(error).__name__}: {error}"))
        return cls("unexpected", sentence, retryable=True, traceback=where)


@dataclass(frozen=True)
class Verdict:
    """Where the job goes, whether this try counts against it, and how long the next one waits."""

    state: JobState
    counts: bool
    wait_seconds: float = 0.0


_ISOLATE: Final = Verdict(JobState.PENDING, counts=False)
_FAIL: Final = Verdict(JobState.FAILED, counts=True)


def verdict(*, retryable: bool, alone: bool, attempts: int, max_attempts: int) -> Verdict:
    """A job that shared its pack is not blamed for what the pack did: it comes back alone. One that was alone, or whose
    own wish failed, has ``max_attempts`` tries, or none more where another would not help. Each waits four times as
    long as the one before (2 s, 8 s, 32 s, ... up to 5 minutes): what is broken for a moment gets the time to mend.

    ``attempts``: tries counted against the job before this one.
    """
    if not alone:
        return _ISOLATE
    if not retryable or attempts + 1 >= max_attempts:
        return _FAIL
    wait_seconds = min(_FIRST_WAIT_SECONDS * 4.0 ** min(attempts, 10), _MAX_WAIT_SECONDS)
    return Verdict(JobState.PENDING, counts=True, wait_seconds=wait_seconds)
