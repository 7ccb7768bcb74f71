"""The night so far, on both ledgers, and how `nightshift status` says it."""

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from typer.testing import CliRunner

from farm import batches, ledger, packs
from farm.database import Database
from farm.draining import drain
from farm.retries import Failure
from farm.workers import note_seen, note_worker
from nightshift import app
from producer.questions import rate
from producer.questions.device_figures import device_figures
from producer.questions.night import night, night_began
from producer.questions.rate import batch_rates, images_per_second
from schemas.settings import Settings
from schemas.tables import Batch
from tests.integration.ledger_farm import (
    ENVIRONMENT,
    LEASE_SECONDS,
    TestClock,
    claimed_pack,
    images_of,
    new_ledger,
    new_worker,
    open_batch,
)

SETTINGS = Settings(lease_seconds=LEASE_SECONDS)
OUT_OF_MEMORY = Failure("device_memory", "one image does not fit\x1b[31m", retryable=False)


def render(database: Database, clock: TestClock, batch_id: int, worker_id: str, seconds: float = 10) -> None:
    """One image after another, each a pack."""
    pack = claimed_pack(database, batch_id, worker_id, size=1)
    packs.begin_rendering(database, pack.id, worker_id)
    clock.advance(seconds)
    ledger.finish_jobs(database, pack, ENVIRONMENT, images_of(pack))


def fail(database: Database, batch_id: int, worker_id: str, failure: Failure = OUT_OF_MEMORY) -> None:
    pack = claimed_pack(database, batch_id, worker_id, size=1)
    ledger.fail_jobs(database, pack, [job.id for job in pack.jobs], failure, max_attempts=1)


def test_only_what_was_rendered_and_failed_since_the_night_began_counts(database: Database, clock: TestClock) -> None:
    worker_id, batch_id = new_worker(database), open_batch(database, 9)
    render(database, clock, batch_id, worker_id)
    fail(database, batch_id, worker_id)
    clock.advance(86_400)
    for _ in range(3):
        render(database, clock, batch_id, worker_id)
    fail(database, batch_id, worker_id)
    tonight = night(database, SETTINGS, clock.now)
    assert tonight.rendered.num_images == 3
    assert tonight.rendered.images_per_second == pytest.approx(3 / 30)
    assert tonight.failed.num_jobs == 1
    assert tonight.failed.reasons == ((OUT_OF_MEMORY.sentence, 1),)
    ((batch, ahead),) = tonight.batches
    assert batch.num_ended == 6
    assert ahead.ends == clock.now + timedelta(seconds=30)


def test_one_pack_is_as_fast_as_it_was_and_images_that_were_linked_to_are_not(
    database: Database, clock: TestClock
) -> None:
    worker_id, batch_id = new_worker(database), open_batch(database, 24)
    pack = claimed_pack(database, batch_id, worker_id)
    clock.advance(100)
    packs.begin_rendering(database, pack.id, worker_id)
    clock.advance(16)
    ledger.finish_jobs(database, pack, ENVIRONMENT, images_of(pack))
    assert images_per_second(database, batch_id) == 0.5
    clock.advance(15)
    assert images_per_second(database, batch_id) == 0.5
    clock.advance(33)
    assert images_per_second(database, batch_id) == pytest.approx(8 / 48)
    twin = open_batch(database, 8)
    ledger.link_jobs(database, twin, {job.id + 24: number for number, job in enumerate(pack.jobs, 1)})
    assert images_per_second(database, twin) is None


def test_an_image_that_was_linked_to_was_not_rendered(database: Database, clock: TestClock) -> None:
    worker_id, first = new_worker(database), open_batch(database, 1)
    render(database, clock, first, worker_id)
    second = open_batch(database, 1)
    ledger.link_jobs(database, second, {2: 1})
    tonight = night(database, SETTINGS, clock.now)
    assert [batch.num_done for batch, _ in tonight.batches] == [1, 1]
    assert tonight.rendered.num_images == 1


def test_the_rates_of_all_batches_are_what_each_would_be_told(
    database: Database, clock: TestClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker_id, waiting = new_worker(database), open_batch(database, 1)
    rendered = [open_batch(database, 4) for _ in range(3)]
    for seconds, batch_id in enumerate(rendered * 2, 5):
        render(database, clock, batch_id, worker_id, seconds)
    for most in (5_000, 4):  # of more results a rate begins with the first that is looked at
        monkeypatch.setattr(rate, "_RESULTS", most)
        assert batch_rates(database) == {batch: images_per_second(database, batch) for batch in rendered}
    assert images_per_second(database, waiting) is None


def test_the_night_begins_when_the_farms_window_opened_or_a_day_ago() -> None:
    saturday = datetime(2026, 11, 21, 7, 0, tzinfo=UTC)
    day_ago = saturday - timedelta(days=1)
    assert night_began(saturday, "") == day_ago
    assert night_began(saturday, "22:00-06:00 Europe/Berlin") == datetime(2026, 11, 20, 21, 0, tzinfo=UTC)
    sunday = saturday + timedelta(days=1, hours=8)
    assert night_began(sunday, "mon-fri 22:00-06:00 UTC") == datetime(2026, 11, 20, 22, 0, tzinfo=UTC)
    assert night_began(saturday, "mon 22:00-06:00 UTC") == day_ago  # too long ago to be this night's
    assert night_began(saturday, "00:00-24:00 UTC") == day_ago  # it never closed


def test_a_worker_that_was_replaced_is_not_missed_and_one_that_was_not_is(database: Database, clock: TestClock) -> None:
    dead, failed, stopped = (new_worker(database, pair) for pair in ("tiny", "broken", "gone"))
    note_worker(database, failed, "failed", "three packs in a row")
    note_worker(database, stopped, "stopped")
    clock.advance(LEASE_SECONDS + 1)
    silent = {worker.pair: worker.standing for worker in night(database, SETTINGS, clock.now).workers}
    assert silent == {"tiny": "silent", "broken": "out of service"}
    new_worker(database)
    new_worker(database)
    standings = sorted((worker.pair, worker.standing) for worker in night(database, SETTINGS, clock.now).workers)
    assert standings == [("broken", "out of service"), ("tiny", "live"), ("tiny", "live")]
    told = device_figures(database, LEASE_SECONDS)
    assert sorted((one.worker.pair, one.state) for one in told) == [
        ("broken", "out of service"), ("tiny", "loading"), ("tiny", "loading")
    ]  # fmt: skip
    note_seen(database, dead)
    assert night(database, SETTINGS, clock.now).live_workers == {"tiny": 3}


def test_a_device_that_was_drained_is_told_of_until_another_worker_has_it(farm: Database) -> None:
    open_batch(farm, 1)
    old = new_worker(farm)
    drain(farm, old)
    assert [one.state for one in device_figures(farm, LEASE_SECONDS)] == ["draining"]
    note_worker(farm, old, "stopped")
    assert [one.state for one in device_figures(farm, LEASE_SECONDS)] == ["drained"]
    said = status().stdout
    assert "live workers: none; 1 drained" in said
    assert "  drained since" in said
    new_worker(farm)
    assert [one.state for one in device_figures(farm, LEASE_SECONDS)] == ["loading"]


def test_a_batch_that_goes_on_is_shown_however_old_it_is(database: Database, clock: TestClock) -> None:
    oldest = open_batch(database, pair="nobody")
    for _ in range(25):
        batch_id = open_batch(database, 1)
        batches.cancel_batch(database, batch_id)
        ledger.sweep_canceled(database, batch_id)
    tonight = night(database, SETTINGS, clock.now)
    assert [batch.id for batch, _ in tonight.batches] == [*range(26, 7, -1), oldest]
    assert tonight.num_more_batches == 6
    assert tonight.unserved_pairs == ("nobody",)


# --- what is printed ------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def farm(home: Path) -> Iterator[Database]:
    with closing(new_ledger(f"sqlite:///{home / 'ledger.sqlite3'}")) as database:
        yield database


def status(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["status", *arguments])


def fill(database: Database) -> None:
    worker_id = new_worker(database)
    batch_id = open_batch(database, 12)
    for _ in range(2):
        pack = claimed_pack(database, batch_id, worker_id, size=4)
        ledger.finish_jobs(database, pack, ENVIRONMENT, images_of(pack))
    for number in range(2):
        sentence = f"its picture has NaN values, and that is a rather long reason to give for it {number}"
        fail(database, batch_id, worker_id, Failure("invalid_image", sentence, retryable=False))
    other = open_batch(database, 1000, pair="a-pair-with-a-very-long-name-that-somebody-thought-was-good")
    longest = {"name": "tonight's list of a great many prompts \x1b[31m\u202e with a name that does not end " * 2}
    window = {"window": "mon-fri 22:00-06:00, sat,sun 00:00-24:00 Europe/Berlin", "priority": 9}
    deadline = {"deadline": datetime(2030, 1, 1, tzinfo=UTC)}
    with database.begin() as tx:
        tx.execute(update(Batch).where(Batch.id == other).values(**longest, **window, **deadline))
    note_worker(database, new_worker(database, "other"), "failed", "the device \x1b[31mis lost " * 20)


def test_it_fits_in_80_columns_and_moves_no_cursor(farm: Database) -> None:
    fill(farm)
    said = status()
    assert said.exit_code == 0
    lines = said.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in said.stdout
    assert "\u202e" not in said.stdout
    text = " ".join(" ".join(lines).split())
    assert ": 8 images rendered, " in text
    assert "images/s in the last 10 minutes, 2 failed" in text
    assert "window mon-fri 22:00-06:00, sat,sun 00:00-24:00 Europe/Berlin" in text
    assert "deadline Tue 2030-01-01 01:00 Europe/Berlin" in text
    assert "66 % of 12" in text
    assert "live workers: 1 × tiny; 1 out of service" in text
    assert "nobody serves pair a-pair-with" in text


def test_as_json_it_has_the_same(farm: Database) -> None:
    fill(farm)
    said = json.loads(status("--json").stdout)
    assert (said["num_images"], said["num_failed"], len(said["failures"])) == (8, 2, 2)
    assert [batch["id"] for batch in said["batches"]] == [2, 1]
    assert datetime.fromisoformat(said["batches"][1]["ends"]) > datetime.fromisoformat(said["since"])
    assert said["live_workers"] == {"tiny": 1}
    assert {worker["standing"] for worker in said["workers"]} == {"live", "out of service"}


def test_a_farm_without_batches_says_how_one_is_made(farm: Database) -> None:
    assert status().stdout == "no batches yet; `nightshift submit MANIFEST` makes one\n"
