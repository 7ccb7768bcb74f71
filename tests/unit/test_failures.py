"""`nightshift failures`, on a ledger with jobs that failed."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from farm import ledger
from farm.retries import Failure
from nightshift import app
from schemas.errors import SpecError
from tests.integration.ledger_farm import claimed_pack, new_ledger, new_worker, open_batch


def failures(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["failures", *arguments])


@pytest.fixture
def batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Three jobs, the second of which failed."""
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path))
    database = new_ledger(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    batch_id = open_batch(database, 3)
    pack = claimed_pack(database, batch_id, new_worker(database))
    ledger.fail_jobs(database, pack, [pack.jobs[1].id], Failure.of(SpecError("prompt: \x1b[31mno")), 3)
    database.close()
    return str(batch_id)


def test_each_failed_job_is_listed_with_its_reason(batch: str) -> None:
    result = failures(batch)
    assert result.exit_code == 1
    assert result.output.splitlines() == [f"{batch}/2 spec (1 try): prompt: \\x1b[31mno", "  cat 2"]


def test_a_traceback_is_shown_where_it_is_asked_for(batch: str) -> None:
    assert r"    schemas.errors.SpecError: prompt: \x1b[31mno" in failures(batch, "--traceback").output.splitlines()


def test_programs_get_the_whole_of_it(batch: str) -> None:
    (job,) = json.loads(failures(batch, "--json").stdout)
    assert (job["batch_id"], job["number"], job["attempts"], job["error_code"]) == (int(batch), 2, 1, "spec")
    assert job["spec"]["prompt"] == "cat 2"


def test_a_batch_without_failures_is_said_so(batch: str, tmp_path: Path) -> None:
    database = new_ledger(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    fine = open_batch(database, 1)
    database.close()
    result = failures(str(fine))
    assert (result.exit_code, result.output) == (0, f"no job of batch {fine} failed\n")
