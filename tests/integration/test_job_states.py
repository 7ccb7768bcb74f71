"""Whether a job runs is what its pack says: for whoever asks, in one batch that has a job in every state."""

from itertools import combinations

import pytest
from sqlalchemy import select

from farm import batches, ledger
from farm.database import Database
from farm.job_states import is_in
from farm.retries import Failure
from producer.questions.job_pages import job_of, jobs_after
from producer.questions.job_search import Wanted, found_jobs
from producer.questions.queries import outcomes
from schemas.errors import SpecError
from schemas.states import JobState
from schemas.tables import Job
from tests.integration.ledger_farm import (
    ENVIRONMENT,
    claimed_pack,
    images_of,
    job_rows,
    new_worker,
    open_batch,
    release_pack,
    states,
)

#: number → state
STATES = {1: "done", 2: "failed", 3: "running", 4: "running", 5: "queued", 6: "pending"}


@pytest.fixture
def batch_id(database: Database) -> int:
    batch_id, worker_id = open_batch(database, 6), new_worker(database)
    done = claimed_pack(database, batch_id, worker_id, 1)
    ledger.finish_jobs(database, done, ENVIRONMENT, images_of(done))
    failed = claimed_pack(database, batch_id, worker_id, 1)
    ledger.fail_jobs(database, failed, [failed.jobs[0].id], Failure.of(SpecError("no")), 3)
    claimed_pack(database, batch_id, worker_id, 2)
    release_pack(database, batch_id, 1)
    return batch_id


def test_a_claim_writes_none_of_its_jobs(database: Database) -> None:
    batch_id = open_batch(database, 2)
    claimed_pack(database, batch_id, new_worker(database))
    assert {job.state for job in job_rows(database, batch_id)} == {"queued"}
    assert states(database, batch_id) == {JobState.RUNNING: 2}


def test_everybody_says_of_a_job_that_it_runs_when_its_pack_does(database: Database, batch_id: int) -> None:
    assert {number: job_of(database, batch_id, number).state for number in STATES} == STATES
    assert {row.number: row.state for row in outcomes(database, batch_id)} == STATES
    assert {job.number: job.state for job in jobs_after(database, batch_id, 0, (), 9).jobs} == STATES


@pytest.mark.parametrize("wanted", [*((state,) for state in JobState), (JobState.QUEUED, JobState.RUNNING)])
def test_whoever_looks_for_a_state_finds_those_that_are_said_to_be_in_it(
    database: Database, batch_id: int, wanted: tuple[JobState, ...]
) -> None:
    expected = [number for number, state in STATES.items() if state in wanted]
    assert [job.number for job in jobs_after(database, batch_id, 0, wanted, 9).jobs] == expected
    found = found_jobs(database, batch_id, Wanted(states=wanted, text="cat"), 0, 9)
    assert [job.number for job in found.jobs] == expected


def test_any_states_can_be_looked_for_together(database: Database, batch_id: int) -> None:
    for wanted in (some for num in range(1, 7) for some in combinations(JobState, num)):
        with database.begin(read_only=True) as tx:
            numbers = tx.execute(select(Job.number).where(is_in(wanted)).order_by(Job.number)).scalars().all()
        assert numbers == [number for number, state in STATES.items() if state in wanted], wanted


def test_what_runs_goes_on_when_its_batch_is_canceled_and_what_is_queued_does_not(
    database: Database, batch_id: int
) -> None:
    batches.cancel_batch(database, batch_id)
    assert ledger.sweep_canceled(database, batch_id) == 2
    numbers = {number: job_of(database, batch_id, number).state for number in STATES}
    assert numbers == STATES | {5: "canceled", 6: "canceled"}
    states(database, batch_id)
