"""A check that never fails proves nothing: with one promise broken on purpose, the same suite must find it."""

from pathlib import Path

import pytest

from tests.chaos.faults import FAULTS, Fault
from tests.chaos.rules import Rules
from tests.chaos.run import Plan, execute
from tests.chaos.services import Services

_MOST_TRIES = 5
pytestmark = pytest.mark.xdist_group("chaos")


def fault(name: str) -> Fault:
    (found,) = [one for one in FAULTS if one.name == name]
    return found


def violations_without(broken: str, name: str, shared: Services, folder: Path, seed: int = 0) -> str:
    rules = Rules(num_workers=2, step_seconds=0.3, breaks=broken)
    plan = Plan(seed=seed, ledger="sqlite", faults=[fault(name)], rules=rules, stall_seconds=6.0)
    return "\n".join(execute(plan, shared, folder / "run").violations)


def test_without_the_fence_a_late_finish_is_seen(shared: Services, tmp_path: Path) -> None:
    """It does harm only where it comes while somebody else has the jobs, which no seed can promise."""
    name, found = "worker stopped past its lease, then continued", list[str]()
    while len(found) < _MOST_TRIES and not any(map(_is_of_a_late_finish, found)):
        found.append(violations_without("fence", name, shared, tmp_path / str(len(found)), seed=len(found)))
    assert any(map(_is_of_a_late_finish, found)), found


def _is_of_a_late_finish(violations: str) -> bool:
    return "and was lost" in violations or "its result's" in violations


def test_without_the_release_of_what_was_lost_running_jobs_are_seen(shared: Services, tmp_path: Path) -> None:
    found = violations_without("release", "worker killed in the base", shared, tmp_path)
    assert "after its lease ran out" in found


def test_without_the_rename_a_torn_file_is_seen(shared: Services, tmp_path: Path) -> None:
    found = violations_without("rename", "worker killed in the middle of the file", shared, tmp_path)
    assert "is under its final name, and not whole" in found
