"""What a user does to a batch, and what the commands say to it."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from farm import batches, ledger
from farm.database import Database
from farm.retries import Failure
from nightshift import app
from producer import changes
from producer.questions.queries import batch_summary
from schemas.errors import NotFoundError
from tests.integration.ledger_farm import claimed_pack, new_ledger, new_worker, open_batch, staged


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path))
    with closing(new_ledger(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")) as database:
        yield database


@pytest.mark.parametrize("command", ["cancel", "pause"])
def test_a_batch_that_has_ended_stays_as_it_is_and_its_failed_jobs_may_be_tried_again(
    database: Database, command: str
) -> None:
    batch_id = open_batch(database, 1)
    pack = claimed_pack(database, batch_id, new_worker(database))
    failure = Failure("invalid_image", "no good", retryable=False)
    ledger.fail_jobs(database, pack, [pack.jobs[0].id], failure, max_attempts=1)
    said = CliRunner().invoke(app, [command, str(batch_id)])
    assert (said.exit_code, said.stdout) == (0, f"batch 1 has ended; there is nothing left to {command}\n")
    assert batch_summary(database, batch_id).state == "open"
    assert ledger.retry_failed(database, batch_id) == 1


def test_what_cancel_leaves_of_a_batch_that_was_never_opened_is_said(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.stage_jobs(database, batches.create_batch(database, "cats", "tiny", 5), [staged(1), staged(2)])
    monkeypatch.setattr("farm.discarding.PIECE", 1)
    monkeypatch.setattr("farm.batches.DISCARD_SECONDS", 0.0)
    said = "batch 1 was never opened; it is discarded with its 2 jobs; of them the dispatcher has 1 to remove\n"
    assert CliRunner().invoke(app, ["cancel", "1"]).stdout == said


def test_a_batch_goes_on_with_what_renders_too(database: Database) -> None:
    batch_id = open_batch(database, 3)
    claimed_pack(database, batch_id, new_worker(database), size=1)
    said = CliRunner().invoke(app, ["pause", "1"]).stdout
    assert said == "batch 1 is paused with 2 jobs; 1 job being finished\n"
    assert CliRunner().invoke(app, ["resume", "1"]).stdout == "batch 1 goes on with 3 jobs\n"


def test_a_canceled_batch_cannot_be_paused_although_it_has_ended(database: Database) -> None:
    batch_id = open_batch(database, 1)
    batches.cancel_batch(database, batch_id)
    ledger.sweep_canceled(database, batch_id)
    with pytest.raises(NotFoundError, match="batch 1 is not open"):
        changes.pause(database, batch_id)


def test_a_batch_whose_last_job_ended_while_it_was_paused_has_ended(database: Database) -> None:
    batch_id = open_batch(database, 1)
    pack = claimed_pack(database, batch_id, new_worker(database))
    changes.pause(database, batch_id)
    assert batch_summary(database, batch_id).shown_state == "paused"
    failure = Failure("invalid_image", "no good", retryable=False)
    ledger.fail_jobs(database, pack, [pack.jobs[0].id], failure, max_attempts=1)
    assert batch_summary(database, batch_id).shown_state == "ended"
    said = CliRunner().invoke(app, ["pause", "1"])
    assert (said.exit_code, said.stdout) == (0, "batch 1 has ended; there is nothing left to pause\n")
    said = CliRunner().invoke(app, ["retry", "1"])
    paused = "batch 1: 1 job pending again; it is paused, and `nightshift resume 1` goes on\n"
    assert (said.exit_code, said.stdout) == (0, paused)
    assert batch_summary(database, batch_id).shown_state == "paused"


def test_a_canceled_batch_is_shown_as_canceled_although_it_has_ended(database: Database) -> None:
    batch_id = open_batch(database, 1)
    changes.cancel(database, batch_summary(database, batch_id))
    found = batch_summary(database, batch_id)
    assert (found.ended, found.shown_state) == (True, "canceled")
