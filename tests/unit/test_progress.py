"""Following batches through outages, and what is said of them meanwhile."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
from typer.testing import CliRunner

from farm import batches, ledger
from farm.database import Database
from farm.retries import Failure
from nightshift import app
from producer.questions.following import FailedJob, Moment, Rate, Sight, failed_lately_statement, follow
from producer.questions.outlook import Outlook
from producer.questions.progress import show_progress, status_line
from producer.questions.queries import BatchSummary, batch_summary
from schemas.errors import DatabaseUnavailableError
from schemas.settings import Settings
from tests.integration.ledger_farm import LEASE_SECONDS, claimed_pack, new_ledger, new_worker, open_batch

SETTINGS = Settings(lease_seconds=LEASE_SECONDS)


@pytest.fixture
def database(sqlite_url: str) -> Iterator[Database]:
    with closing(new_ledger(sqlite_url)) as database:
        yield database


@pytest.fixture
def batch(database: Database) -> BatchSummary:
    return batch_summary(database, open_batch(database))


def end(database: Database, batch_id: int) -> None:
    batches.cancel_batch(database, batch_id)
    ledger.sweep_canceled(database, batch_id)


def test_an_outage_of_the_ledger_is_said_once_and_waited_out(
    database: Database, batch: BatchSummary, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, away = tmp_path / "ledger.sqlite3", tmp_path / "away"

    def come_back() -> None:
        file.rmdir()
        away.rename(file)

    tended: list[float] = []
    sights = follow(database, [batch.id], SETTINGS, lambda: tended.append(time.monotonic()))
    next(sights)
    database.close()
    file.rename(away)
    file.mkdir()
    timer = Timer(1.7, come_back)
    timer.start()
    assert next(sights).sights[0].batch == batch
    timer.join()
    said = capsys.readouterr().err
    assert said.count("does not answer") == said.count("; trying again\n") == 1
    end(database, batch.id)
    assert [moment.sights[0].batch.ended for moment in sights] == [True]
    assert len(tended) == 2


def test_what_tending_raises_ends_the_following(database: Database, batch: BatchSummary) -> None:
    def tend() -> None:
        raise DatabaseUnavailableError("the workers ended")

    with pytest.raises(DatabaseUnavailableError, match="the workers ended"):
        list(follow(database, [batch.id], SETTINGS, tend))


def test_live_workers_of_the_pair_are_seen(database: Database, batch: BatchSummary) -> None:
    sights = follow(database, [batch.id], SETTINGS)
    assert next(sights).sights == (Sight(batch, num_workers=0),)
    new_worker(database, pair="other")
    new_worker(database)
    assert next(sights).sights == (Sight(batch, num_workers=1),)


def test_the_progress_of_a_pair_that_nobody_serves_says_what_to_do(
    database: Database, batch: BatchSummary, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = replace(batch, num_pending=0, num_done=4)
    show_progress(iter([Moment((Sight(batch, 0),)), Moment((Sight(ended, 0),))]))
    first, last = capsys.readouterr().err.splitlines()
    assert first == (
        "batch 1 (cats): 0/4 nobody serves pair tiny: start `nightshift worker --pair tiny`, or `nightshift up`"
    )
    assert last == "batch 1 (cats): 4/4"


def test_the_line_tells_a_loading_worker_a_starting_one_and_none_apart(batch: BatchSummary) -> None:
    assert status_line(Sight(batch, 1)) == "waiting for the first image (a worker is loading)"
    for num_workers in (0, 1):
        tended = Sight(batch, num_workers, tended=True)
        assert status_line(tended) == "waiting for the first image (a worker is starting)"


def test_a_worker_that_went_away_in_the_middle_is_missed_only_when_nothing_ends(batch: BatchSummary) -> None:
    half = replace(batch, num_pending=2, num_done=2)
    assert "nobody serves" in status_line(Sight(half, 0))
    assert status_line(Sight(half, 1)) == ""
    assert status_line(Sight(half, 0, images_per_second=1.0, seconds_left=2)) == "1.00 images/s, 0:02 left"


def test_where_a_window_is_closed_it_is_said_when_it_opens(batch: BatchSummary) -> None:
    closed = Sight(batch, 1, outlook=Outlook(waits="its window opens Sat 22:00"))
    assert status_line(closed) == "its window opens Sat 22:00"
    still = replace(closed, images_per_second=1.0, seconds_left=36_000)
    assert status_line(still) == "1.00 images/s, its window opens Sat 22:00"


# --- the rate -------------------------------------------------------------------------------------------------------


def test_the_rate_counts_from_the_first_images_that_were_seen() -> None:
    rate = Rate()
    for at_seconds, num_ended in ((0.0, 0), (50.0, 8), (51.0, 9), (53.0, 11)):
        rate.note(at_seconds, num_ended)
    assert rate.per_second == 1.0


def test_what_the_ledger_says_of_the_minutes_before_stands_for_the_first_minute() -> None:
    rate = Rate(before=2.5)
    rate.note(0.0, 100)
    assert rate.per_second == 2.5
    rate.note(59.0, 100)
    assert rate.per_second == 2.5
    rate.note(61.0, 100)
    assert rate.per_second is None


def test_failed_jobs_that_are_tried_again_make_no_negative_rate() -> None:
    rate = Rate()
    for at_seconds, num_ended in ((0.0, 0), (1.0, 8), (2.0, 9), (3.0, 4), (4.0, 5), (5.0, 6)):
        rate.note(at_seconds, num_ended)
    assert rate.per_second == 1.0


def test_a_night_begins_with_the_rate_of_the_one_before_and_hours_that_were_closed_slow_nothing_down() -> None:
    rate = Rate()
    for second in range(20):
        rate.note(second, 2 * second)
    for second in range(20, 60_000, 10):
        rate.note(second, 38, waits=True)
        assert rate.per_second is None
        assert rate.expected == 2.0
    rate.note(60_000, 38)
    assert rate.per_second == 2.0
    rate.note(60_005, 46)
    rate.note(60_007, 54)
    assert rate.per_second == 4.0


def test_packs_that_take_minutes_have_a_rate_and_what_stands_still_has_none() -> None:
    rate = Rate()
    for second in range(0, 1_001, 10):
        rate.note(second, 8 * (second // 300))
    assert rate.per_second == pytest.approx(8 / 300)
    rate.note(1_801, 24)
    assert rate.per_second is None
    rate.note(9_000, 32)
    rate.note(9_010, 40)
    assert rate.per_second == 0.8


def test_images_of_a_pack_that_come_at_once_are_not_as_fast_as_that_for_long() -> None:
    rate, seconds, num_images = Rate(), 0.0, 0
    rate.note(seconds, num_images)
    for _ in range(4):
        for _ in range(8):
            num_images += 1
            seconds += 0.5
            rate.note(seconds, num_images)
        for _ in range(140):
            seconds += 0.5
            rate.note(seconds, num_images)
    assert rate.per_second == pytest.approx(8 / 74, rel=0.15)
    seconds += 300
    rate.note(seconds, num_images)
    assert rate.per_second is None


def test_jobs_that_are_canceled_are_no_images(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farm.ledger.SWEEP_CHUNK", 2)
    monkeypatch.setattr("producer.questions.following._POLL_SECONDS", 0.01)
    batch_id = open_batch(database, 9)
    claimed_pack(database, batch_id, new_worker(database), size=1)
    moments = follow(database, [batch_id], SETTINGS)
    batches.cancel_batch(database, batch_id)
    for num_canceled in (0, 2, 4, 6):
        (sight,) = next(moments).sights
        assert (sight.batch.num_canceled, sight.images_per_second) == (num_canceled, None)
        ledger.sweep_canceled(database, batch_id)


# --- several batches, and their failures ----------------------------------------------------------------------------


def fail_one(database: Database, batch_id: int, worker_id: str, sentence: str = "no good \x1b[2J") -> None:
    pack = claimed_pack(database, batch_id, worker_id, size=1)
    failure = Failure("invalid_image", sentence, retryable=False)
    ledger.fail_jobs(database, pack, [job.id for job in pack.jobs], failure, max_attempts=1)


def test_each_failure_is_told_once_and_those_before_the_first_look_never(database: Database) -> None:
    worker_id, first, second = new_worker(database), open_batch(database), open_batch(database)
    fail_one(database, first, worker_id)
    moments = follow(database, [first, second], SETTINGS)
    assert next(moments).failures == ()
    fail_one(database, first, worker_id)
    fail_one(database, second, worker_id, "other")
    assert {(job.batch_id, job.number) for job in next(moments).failures} == {(first, 2), (second, 1)}
    assert next(moments).failures == ()
    fail_one(database, second, worker_id, "again")
    assert [(job.number, job.reason) for job in next(moments).failures] == [(2, "again")]
    ledger.retry_failed(database, second)
    next(moments)
    fail_one(database, second, worker_id)
    assert [job.batch_id for job in next(moments).failures] == [second]


def test_a_look_for_failures_reads_the_last_packs_and_not_the_batch(database: Database) -> None:
    open_batch(database)
    with database.begin(read_only=True) as tx:
        statement = failed_lately_statement(["tiny"], tx.now).compile(
            database.engine, compile_kwargs={"render_postcompile": True}
        )
        asked = f"EXPLAIN QUERY PLAN {statement}", tuple(None for _ in statement.positiontup or ())
        plan = [row[3] for row in tx.connection.exec_driver_sql(*asked)]
    assert not [step for step in plan if step.startswith("SCAN") and "jobs" in step]
    assert any("ix_jobs_pack_id" in step for step in plan), plan


def test_every_batch_has_lines_and_a_hundred_failures_are_said(
    batch: BatchSummary, capsys: pytest.CaptureFixture[str]
) -> None:
    other = replace(batch, id=2, name="dogs", num_pending=0, num_failed=4)
    lost = tuple(FailedJob(2, number, "no \x1b[2J") for number in range(150))
    moments = [Moment((Sight(batch, 1), Sight(other, 1))), Moment((Sight(batch, 1), Sight(other, 1)), lost)]
    assert show_progress(iter(moments)) == [batch, other]
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "4 jobs of batch 2 failed already; `nightshift failures 2` lists them"
    assert lines[1].startswith("batch 1 (cats): 0/4 ")
    assert lines[2] == "batch 2 (dogs): 4/4 4 failed"
    assert lines[3] == "job 2/0 failed: no \\x1b[2J"
    assert lines[-1] == "more failures are only counted; `nightshift failures 2` lists them"
    assert len(lines) == 3 + 100 + 1


def test_a_terminal_gets_a_bar_for_each_batch_and_the_failures_above(
    batch: BatchSummary, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    named = replace(batch, name="[red]cats[/red]\x1b[2J")
    ended = Sight(replace(named, num_pending=0, num_done=4), 0)
    moments = [Moment((Sight(named, 1),)), Moment((Sight(named, 1),), (FailedJob(1, 3, "[bold]no"),)), Moment((ended,))]
    show_progress(iter(moments))
    drawn = capsys.readouterr().err
    assert "[red]cats[/red]\\x1b[2J" in drawn
    assert "job 1/3 failed: [bold]no" in drawn
    assert "\x1b[2J" not in drawn
    assert "4/4" in drawn


# --- nightshift watch -----------------------------------------------------------------------------------------------


def watch(home: Path, *arguments: str) -> Any:
    return CliRunner().invoke(app, ["watch", *arguments], env={"NIGHTSHIFT_HOME": str(home)})


def test_without_a_name_all_that_have_not_ended_are_watched_else_the_youngest(
    database: Database, tmp_path: Path
) -> None:
    assert "there is no batch to watch yet" in str(watch(tmp_path).exception)
    ids = [open_batch(database) for _ in range(3)]
    for batch_id in ids[:2]:
        end(database, batch_id)
    timer = Timer(1.0, end, (database, ids[2]))
    timer.start()
    said = watch(tmp_path)
    timer.join()
    assert said.exit_code == 0
    assert said.stdout.startswith("batch 3 (cats, pair tiny): 0 of 4 done, 4 canceled")
    assert watch(tmp_path).stdout == said.stdout


def test_several_are_named_and_one_failure_is_the_exit_code(database: Database, tmp_path: Path) -> None:
    worker_id, ids = new_worker(database), [open_batch(database), open_batch(database)]
    fail_one(database, ids[0], worker_id)
    for batch_id in ids:
        end(database, batch_id)
    said = watch(tmp_path, "2", "1", "cats", "--json")
    assert said.exit_code == 1
    assert [batch["id"] for batch in json.loads(said.stdout)["batches"]] == [2, 1]
    assert watch(tmp_path, "2").exit_code == 0


def test_ctrl_c_ends_the_watching_and_nothing_else(database: Database, batch: BatchSummary, tmp_path: Path) -> None:
    environment = {**os.environ, "NIGHTSHIFT_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "nightshift", "watch"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("batch 1 (cats): 0/4 nobody serves")
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == "no longer watching; the farm goes on\n"
    assert process.returncode == 130
    assert batch_summary(database, batch.id) == batch
