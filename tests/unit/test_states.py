"""The moves that a job may make: the design's diagram, line by line."""

import pytest

from schemas.states import JOB_MOVES, BatchState, JobState, PackState, may_move

MOVES = {
    ("pending", "queued"),
    ("queued", "running"),
    ("running", "done"),
    ("queued", "pending"),
    ("running", "pending"),
    ("running", "failed"),
    ("failed", "pending"),
    ("pending", "done"),
    ("pending", "canceled"),
    ("queued", "canceled"),
    ("running", "canceled"),
}


def test_a_job_makes_these_moves_and_no_other() -> None:
    made = {(old.value, new.value) for old in JobState for new in JobState if may_move(old, new)}
    assert made == MOVES


def test_every_state_has_its_moves_listed() -> None:
    assert set(JOB_MOVES) == set(JobState)


def test_done_and_canceled_are_for_ever_and_failed_may_be_retried() -> None:
    assert {state for state in JobState if not JOB_MOVES[state]} == {JobState.DONE, JobState.CANCELED}
    assert JOB_MOVES[JobState.FAILED] == {JobState.PENDING}


def test_the_moves_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        JOB_MOVES[JobState.DONE] = frozenset({JobState.PENDING})  # type: ignore[index]


@pytest.mark.parametrize("states", [JobState, PackState, BatchState])
def test_a_state_fits_its_column(states: type[JobState] | type[PackState] | type[BatchState]) -> None:
    assert all(len(state.value) <= 10 for state in states)
