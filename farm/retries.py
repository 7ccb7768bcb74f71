"""What becomes of a job after its pack failed: pure policy, for errors (worker) and expired leases (dispatcher)."""

from dataclasses import dataclass
from typing import Final, Self

from schemas.errors import InputError, NightshiftError
from schemas.states import JobState


@dataclass(frozen=True)
class Failure:
    """Why a pack, or one job of it, did not become images.

    ``is_of_the_job``: the job asks for what cannot be, whoever shares its pack, so there is nobody else to suspect.
    """

    code: str
    sentence: str
    retryable: bool
    is_of_the_job: bool = False

    @classmethod
    def of(cls, error: Exception) -> Self:
        if isinstance(error, NightshiftError):
            return cls(error.code, str(error), error.retryable, isinstance(error, InputError))
        return cls("unexpected", f"{type(error).__name__}: {error}", retryable=True)


@dataclass(frozen=True)
class Verdict:
    """Where the job goes, and whether this try counts against it."""

    state: JobState
    counts: bool


_ISOLATE: Final = Verdict(JobState.PENDING, counts=False)
_AGAIN: Final = Verdict(JobState.PENDING, counts=True)
_FAIL: Final = Verdict(JobState.FAILED, counts=True)


def verdict(*, retryable: bool, alone: bool, attempts: int, max_attempts: int) -> Verdict:
    """A job that shared its pack is not blamed for what the pack did: it comes back alone. One that was alone, or whose
    own wish failed, has ``max_attempts`` tries, or none more where another would not help.

    ``attempts``: tries counted against the job before this one.
    """
    if not alone:
        return _ISOLATE
    if not retryable or attempts + 1 >= max_attempts:
        return _FAIL
    return _AGAIN
