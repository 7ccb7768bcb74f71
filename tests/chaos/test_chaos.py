"""The short form of `make chaos`: every fault once, several to a run, on SQLite and on PostgreSQL."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.chaos.faults import FAULTS
from tests.chaos.plans import mixture, short_form
from tests.chaos.run import execute
from tests.chaos.services import Services

#: Another one on each day of the year would find more, and fail without a change: `make chaos` is for that.
SEED = int(os.environ.get("CHAOS_SEED", "1"))

pytestmark = pytest.mark.xdist_group("chaos")


def test_whatever_fails_every_job_ends_once_and_every_image_is_as_without_faults(
    shared: Services, tmp_path: Path
) -> None:
    of_postgres, of_sqlite = short_form(SEED)
    # PostgreSQL's run in this thread: the server that it starts again is tied to the thread that starts it.
    with ThreadPoolExecutor(1) as other:
        sqlite = other.submit(execute, of_sqlite, shared, tmp_path / "sqlite")
        reports = [execute(of_postgres, shared, tmp_path / "postgresql"), sqlite.result()]
    broken = [f"{report.ledger}: {violation}" for report in reports for violation in report.violations]
    assert not broken, f"seed {SEED}; all that it left is in {tmp_path}\n" + "\n".join(broken)
    suffered = {fault for report in reports for fault in report.timings}
    assert suffered == {fault.name for fault in FAULTS}


def test_a_seed_gives_the_same_plan_again() -> None:
    assert mixture(7) == mixture(7)
    assert mixture(7).faults != mixture(8).faults
    assert [plan.faults for plan in short_form(3)] == [plan.faults for plan in short_form(3)]


@pytest.mark.parametrize("seed", range(30))
def test_every_mixture_has_a_dozen_faults_and_sixty_jobs(seed: int) -> None:
    plan = mixture(seed)
    assert len(plan.faults) >= 12
    assert plan.num_jobs >= 60
    assert all(fault.suits(plan.ledger) for fault in plan.faults)
    assert 2 <= plan.rules.num_workers <= 4
