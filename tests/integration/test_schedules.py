"""Schedules on a real ledger: each firing makes one batch, with any number of dispatchers and after any downtime."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from farm import schedules
from farm.broker import Broker
from farm.database import Database
from farm.firings import MAX_TRIES, claim_firing, fire_now
from farm.schedules import pause_schedule, remove_schedule, resume_schedule
from producer.dispatching.dispatcher import Dispatcher
from producer.dispatching.firing import try_firing
from producer.dispatching.firings import Firings
from producer.dispatching.schedule_queries import due_schedules, find_schedule
from producer.questions.queries import batch_summaries, batch_summary
from schemas.schedule import RETRY_SECONDS, Missed
from schemas.settings import Settings
from tests.integration import dying_dispatcher
from tests.integration.ledger_farm import TestClock, new_ledger, states
from tests.integration.schedule_farm import (
    add,
    firing_states,
    last_firing,
    names,
    nights,
    prompts,
    tended,
    through,
)

BERLIN = ZoneInfo("Europe/Berlin")
DAY = timedelta(days=1)


@pytest.fixture
def clock() -> TestClock:
    clock = TestClock()
    clock.now = datetime(2026, 11, 21, 12, tzinfo=UTC)
    return clock


@pytest.fixture
def database(database_url: str, clock: TestClock) -> Iterator[Database]:
    with closing(new_ledger(database_url, clock)) as database:
        yield database


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "cats.tsv"
    path.write_text("Prompt\tTaken\na cat on {date}\t{time}\na {red|blue} cat\t\n")
    return path


@pytest.fixture
def firings(database: Database, settings: Settings) -> Iterator[Firings]:
    with closing(Firings(database, settings)) as firings:
        yield firings


@pytest.mark.parametrize(("month", "day"), [(11, 20), (3, 26), (10, 22)], ids=["a week", "spring", "autumn"])
def test_through_whole_weeks_each_night_makes_one_batch_at_its_time(
    sqlite_url: str, redis_url: str, settings: Settings, manifest: Path, clock: TestClock, month: int, day: int
) -> None:
    clock.now = datetime(2026, month, day, 9, tzinfo=UTC)
    with closing(new_ledger(sqlite_url, clock)) as database, closing(Broker(redis_url)) as broker:
        add(database, clock, manifest, "0 2 * * *")
        firings = Firings(database, settings)
        dispatcher = Dispatcher(database, broker, settings, firings)
        opened = list[datetime]()
        for _ in range(6 * 24):
            dispatcher.tick()
            firings.wait()
            opened += [clock.now] * (len(batch_summaries(database, 99)) - len(opened))
            clock.advance(3600)
        dispatcher.close()
        assert names(database) == nights(f"2026-{month:02}-{day + 1:02}", 6)
    local = [f"{moment.astimezone(BERLIN):%H:%M}" for moment in opened]
    assert set(local) <= {"02:00", "03:00"}
    assert local.count("03:00") == (month == 3)
    assert [later - earlier for earlier, later in pairwise(opened)].count(DAY) >= 3


def test_many_dispatchers_at_once_make_one_batch_for_each_firing(
    database_url: str, clock: TestClock, settings: Settings, manifest: Path
) -> None:
    with ExitStack() as opened:
        databases = [opened.enter_context(closing(new_ledger(database_url, clock))) for _ in range(3)]
        add(databases[0], clock, manifest)
        together = threading.Barrier(len(databases))

        def week(database: Database) -> None:
            firings = Firings(database, settings)
            for n in range(7 * 4):
                together.wait()
                clock.now = datetime(2026, 11, 21, 22, tzinfo=UTC) + n * DAY / 4
                together.wait()
                tended(firings)

        threads = [threading.Thread(target=week, args=(database,)) for database in databases]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert names(databases[0]) == nights("2026-11-21", 7)
        assert firing_states(databases[0]) == ["done"] * 7


@pytest.mark.parametrize(
    ("missed", "batches", "fired"),
    [(Missed.ONCE, ["2026-11-21", "2026-11-24", "2026-11-25"], ["done"] * 3),
     (Missed.SKIP, ["2026-11-21", "2026-11-25"], ["done", "skipped", "done"])],
)  # fmt: skip
def test_after_a_downtime_of_three_days_what_was_missed_fires_once_or_is_skipped(
    database: Database, firings: Firings, clock: TestClock, manifest: Path,
    missed: Missed, batches: list[str], fired: list[str],
) -> None:  # fmt: skip
    add(database, clock, manifest, missed=missed)
    through(clock, datetime(2026, 11, 22, 6, tzinfo=UTC), firings)
    clock.advance(3 * DAY.total_seconds())
    through(clock, datetime(2026, 11, 26, 6, tzinfo=UTC), firings)
    assert names(database) == [f"cats {day}" for day in batches]
    assert firing_states(database) == fired


def test_what_a_pause_was_over_is_not_caught_up(
    database: Database, firings: Firings, clock: TestClock, manifest: Path
) -> None:
    schedule_id = add(database, clock, manifest)
    pause_schedule(database, schedule_id)
    through(clock, clock.now + 2 * DAY, firings)
    found = find_schedule(database, "nightly")
    resume_schedule(database, schedule_id, found.line.next_after(clock.now))
    through(clock, clock.now + 2 * DAY, firings)
    assert names(database) == nights("2026-11-23", 2)


def test_a_dispatcher_that_saw_a_schedule_before_it_was_paused_does_not_fire_it(
    database: Database, clock: TestClock, manifest: Path
) -> None:
    schedule_id = add(database, clock, manifest)
    clock.advance(DAY.total_seconds())
    now, (seen,) = due_schedules(database)
    pause_schedule(database, schedule_id)
    assert not schedules.fire(database, schedule_id, seen.next_due_at, seen.due(now))
    assert firing_states(database) == []


def test_a_firing_says_how_its_batch_came_to_be_and_fills_its_rows(
    database: Database, firings: Firings, clock: TestClock, manifest: Path
) -> None:
    add(database, clock, manifest, deadline="07:00")
    through(clock, clock.now + DAY, firings)
    (batch,) = batch_summaries(database, 9)
    assert batch.deadline == datetime(2026, 11, 22, 6, tzinfo=UTC)
    assert batch.origin is not None
    assert (batch.origin["schedule"], batch.origin["due_at"]) == ("nightly", "2026-11-21T21:00:00Z")
    assert batch.origin["order"]["manifest"] == str(manifest)
    assert [json.loads(spec)["prompt"] for spec in prompts(database)] == ["a cat on 2026-11-21", "a {red|blue} cat"]


@pytest.mark.parametrize(("base_seed", "num_seeds"), [(None, 3), (7, 1)])
def test_an_unchanged_manifest_gives_other_images_each_night_unless_its_base_seed_is_given(
    database: Database, firings: Firings, clock: TestClock, manifest: Path, base_seed: int | None, num_seeds: int
) -> None:
    add(database, clock, manifest, base_seed=base_seed)
    through(clock, clock.now + 3 * DAY, firings)
    specs = [json.loads(spec) for spec in prompts(database)]
    assert len({spec["seed"] for spec in specs if spec["prompt"] == "a {red|blue} cat"}) == num_seeds


def test_a_manifest_that_cannot_be_read_fails_its_firing_once_and_says_why(
    database: Database, firings: Firings, clock: TestClock, tmp_path: Path
) -> None:
    add(database, clock, tmp_path / "lists" / "{date}.tsv")
    through(clock, clock.now + DAY, firings)
    failed = last_firing(database)
    assert (failed.state, failed.tries, failed.batch_id) == ("failed", 1, None)
    assert failed.error == f"there is no file {tmp_path}/lists/2026-11-21.tsv"
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "2026-11-22.tsv").write_text("Prompt\na cat\n")
    through(clock, clock.now + DAY, firings)
    assert names(database) == ["cats 2026-11-22"]


def test_what_does_not_answer_is_tried_again_after_longer_and_longer_waits_and_then_fails(
    database: Database, firings: Firings, clock: TestClock, manifest: Path, settings: Settings
) -> None:
    manifest.write_text("Prompt\tWidth\na cat\t7\na dog\t512\n")
    (settings.home / "invalid").write_text("in the place of the folder of bad rows")
    add(database, clock, manifest, skip_invalid=True)
    clock.now = datetime(2026, 11, 21, 21, tzinfo=UTC)
    for tries, wait in enumerate(RETRY_SECONDS, 1):
        tended(firings)
        clock.advance(wait - 1)
        tended(firings)
        assert (last_firing(database).state, last_firing(database).tries) == ("due", tries)
        clock.advance(1)
    tended(firings)
    clock.advance(7 * 3600)
    tended(firings)
    assert (last_firing(database).state, last_firing(database).tries) == ("failed", MAX_TRIES)
    assert "cannot list the invalid rows" in (last_firing(database).error or "")
    assert names(database) == []


def test_what_did_not_answer_and_does_again_makes_the_batch(
    database: Database, firings: Firings, clock: TestClock, manifest: Path, settings: Settings
) -> None:
    manifest.write_text("Prompt\tWidth\na cat\t7\na dog\t512\n")
    blocked = settings.home / "invalid"
    blocked.write_text("in the place of the folder of bad rows")
    add(database, clock, manifest, skip_invalid=True)
    clock.now = datetime(2026, 11, 21, 21, tzinfo=UTC)
    tended(firings)
    blocked.unlink()
    through(clock, clock.now + DAY / 2, firings)
    done = last_firing(database)
    assert (done.state, done.tries, done.error, names(database)) == ("done", 2, None, ["cats 2026-11-21"])


def test_a_manifest_that_takes_long_keeps_nobody_waiting_and_is_given_back_at_a_stop(
    database: Database, settings: Settings, clock: TestClock, manifest: Path
) -> None:
    manifest.unlink()
    os.mkfifo(manifest)
    add(database, clock, manifest)
    clock.advance(DAY.total_seconds())
    slow, other = (Firings(database, one) for one in (settings.model_copy(update={"stop_seconds": 0.0}), settings))
    slow.tend()
    other.tend()  # finds nothing to do: it is in the first one's hands
    with manifest.open("w") as pipe:
        pipe.write("Prompt\n" + "a cat\n" * 5_000)
        pipe.flush()
        assert last_firing(database).state == "submitting"
        slow.close()
        pipe.write("a cat\n")
    slow.wait()
    assert (last_firing(database).state, last_firing(database).tries) == ("due", 0)
    assert names(database) == []
    manifest.unlink()
    manifest.write_text("Prompt\na cat\n")
    tended(other)
    assert names(database) == ["cats 2026-11-21"]


def test_a_schedule_that_is_removed_while_it_is_submitted_leaves_no_batch(
    database: Database, firings: Firings, clock: TestClock, manifest: Path
) -> None:
    manifest.unlink()
    os.mkfifo(manifest)
    schedule_id = add(database, clock, manifest)
    clock.advance(DAY.total_seconds())
    firings.tend()
    with manifest.open("w") as pipe:
        pipe.write("Prompt\n" + "a cat\n" * 2_000)
        pipe.flush()
        remove_schedule(database, schedule_id)
    firings.wait()
    assert names(database) == []


def test_the_batches_of_a_schedule_that_is_removed_stay(
    database: Database, firings: Firings, clock: TestClock, manifest: Path
) -> None:
    schedule_id = add(database, clock, manifest)
    through(clock, clock.now + DAY, firings)
    remove_schedule(database, schedule_id)
    through(clock, clock.now + DAY, firings)
    assert names(database) == nights("2026-11-21", 1)


def test_a_firing_that_was_taken_over_is_opened_by_one_alone(
    database: Database, settings: Settings, clock: TestClock, manifest: Path
) -> None:
    add(database, clock, manifest)
    found = find_schedule(database, "nightly")
    first = fire_now(database, found, 60)
    clock.advance(61)
    second = claim_firing(database, 60)
    assert second is not None
    for claimed in (first, second, first):
        try_firing(database, settings, claimed, threading.Event())
    assert names(database) == ["cats 2026-11-21"]
    assert last_firing(database).batch_id == batch_summaries(database, 1)[0].id


def test_a_submission_that_kills_its_process_each_time_fails_in_the_end(
    database: Database, firings: Firings, clock: TestClock, manifest: Path
) -> None:
    add(database, clock, manifest)
    clock.now = datetime(2026, 11, 21, 21, tzinfo=UTC)
    now, (schedule,) = due_schedules(database)
    schedules.fire(database, schedule.id, schedule.next_due_at, schedule.due(now))
    for _ in range(MAX_TRIES):
        assert claim_firing(database, 60) is not None
        clock.advance(61)
    tended(firings)
    assert last_firing(database).state == "failed"
    assert "ended 6 times without a word" in (last_firing(database).error or "")


def died(processes: Any, url: str, home: Path, point: str) -> None:
    """A real dispatcher's process, which is killed at the point."""
    points = home / "points"
    (points / "fired").mkdir(parents=True)
    (points / point).write_text("KILL")
    process = processes.Process(target=dying_dispatcher.main, args=(url, home, points))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("point", ["after firing", "claimed", "created", "staged", "before opening", "opened"])
def test_a_dispatcher_that_is_killed_at_any_point_of_a_submission_leaves_one_batch_to_the_next(
    processes: Any, database_url: str, settings: Settings, manifest: Path, clock: TestClock, point: str
) -> None:
    clock.now = datetime.now(UTC) - 2 * DAY
    manifest.write_text("Prompt\n" + "a cat\n" * 1_500)
    with closing(new_ledger(database_url, clock)) as database, closing(Firings(database, settings)) as next_one:
        add(database, clock, manifest)
        died(processes, database_url, settings.home, point)
        clock.now = datetime.now(UTC) + timedelta(hours=1)
        tended(next_one)
        tended(next_one)
        (name,) = names(database)
        (batch,) = batch_summaries(database, 9)
        assert firing_states(database) == ["done"]
        assert last_firing(database).batch_id == batch.id
        assert batch_summary(database, batch.id).num_jobs == sum(states(database, batch.id).values()) == 1_500
        assert name.startswith("cats ")
