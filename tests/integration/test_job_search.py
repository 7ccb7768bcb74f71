"""Looking for jobs of a batch, on both databases."""

import pytest
from sqlalchemy import update

from farm import batches, ledger
from farm.database import Database
from farm.retries import Failure
from producer.questions import job_search
from producer.questions.job_search import Wanted, found_jobs
from schemas.records import StagedJob
from schemas.spec import JobSpec
from schemas.states import JobState
from schemas.tables import Job
from schemas.written_spec import WrittenSpec
from tests.integration.ledger_farm import claimed_pack, new_worker, open_batch, release_pack

ROWS = (
    ({"prompt": "a Red fox"}, {"Category": "animals"}),
    ({"prompt": "100% of a_b", "width": 512, "height": 768}, {"Category": "signs"}),
    ({"prompt": "100 of aXb", "width": 512, "height": 768, "scheduler": "dpm++_2m"}, {"Category": "signs"}),
    ({"prompt": "das rote Schild “Öl”", "scheduler": "dpm++_2m_sde"}, {}),
    ({"prompt": "a red door", "scheduler": "dpm++_2m", "scheduler_options": {"use_karras_sigmas": True}}, {}),
)


@pytest.fixture
def batch_id(database: Database) -> int:
    batch_id = batches.create_batch(database, "mixed", "tiny", 5)
    specs = [JobSpec.parse({**fields, "seed": number}) for number, (fields, _) in enumerate(ROWS, 1)]
    jobs = [StagedJob.of(n, WrittenSpec.of(spec), 0, ROWS[n - 1][1]) for n, spec in enumerate(specs, 1)]
    ledger.stage_jobs(database, batch_id, jobs)
    batches.open_batch(database, batch_id)
    with database.begin() as tx:
        tx.execute(update(Job).where(Job.number == 5).values(state=JobState.FAILED))
    return batch_id


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        (Wanted(), [1, 2, 3, 4, 5]),
        (Wanted(text="red"), [1, 5]),
        (Wanted(text="100%"), [2]),
        (Wanted(text="a_b"), [2]),
        (Wanted(text="“Öl”"), [4]),
        (Wanted(size="512x768"), [2, 3]),
        (Wanted(size="12x768"), []),
        (Wanted(scheduler="DPMSolverMultistepScheduler"), [3, 4, 5]),
        (Wanted(scheduler="EulerDiscreteScheduler"), [1, 2]),
        (Wanted(scheduler="EulerDiscrete"), []),
        (Wanted(meta=("Category", "signs")), [2, 3]),
        (Wanted(meta=("Nothing", "signs")), []),
        (Wanted(states=[JobState.FAILED], text="red"), [5]),
        (Wanted(states=[JobState.FAILED]), [5]),
    ],
)
def test_jobs_are_found(database: Database, batch_id: int, wanted: Wanted, numbers: list[int]) -> None:
    page = found_jobs(database, batch_id, wanted, 0, 10)
    assert [job.number for job in page.jobs] == numbers
    assert page.after is None


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.QUEUED, JobState.PENDING])
def test_they_are_looked_for_from_any_job_of_their_batch_on(database: Database, state: JobState) -> None:
    open_batch(database, 3)  # so that a job's number is not its id
    batch_id, worker_id = open_batch(database, 4), new_worker(database)
    if state == JobState.QUEUED:
        release_pack(database, batch_id, 4)
    if state == JobState.FAILED:
        pack = claimed_pack(database, batch_id, worker_id, 4)
        ledger.fail_jobs(database, pack, [job.id for job in pack.jobs], Failure("render", "no", False, True), 3)
    for after, numbers, following in ((0, [1, 2], 2), (2, [3, 4], None), (3, [4], None), (4, [], None)):
        page = found_jobs(database, batch_id, Wanted(states=[state]), after, 2)
        assert ([job.number for job in page.jobs], page.after) == (numbers, following)


def test_pages_follow_each_other(database: Database, batch_id: int) -> None:
    first = found_jobs(database, batch_id, Wanted(text="a"), 0, 2)
    assert ([job.number for job in first.jobs], first.after) == ([1, 2], 2)
    second = found_jobs(database, batch_id, Wanted(text="a"), 2, 3)
    assert ([job.number for job in second.jobs], second.after) == ([3, 4, 5], None)


def test_a_page_looks_through_so_many_rows_and_says_where_it_stopped(
    database: Database, batch_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_search, "_LOOKED_THROUGH", 2)
    page = found_jobs(database, batch_id, Wanted(text="door"), 0, 10)
    assert (page.jobs, page.after) == ([], 2)
    assert found_jobs(database, batch_id, Wanted(text="door"), 4, 10).after is None
