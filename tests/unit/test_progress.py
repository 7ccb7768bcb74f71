"""Following a batch through outages, and what the line under the bar says."""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Timer

import pytest

from farm import batches, ledger
from farm.database import Database
from producer.progress import Rate, Sight, follow, show_progress, status_line
from producer.queries import BatchSummary, batch_summary
from schemas.errors import DatabaseUnavailableError
from schemas.settings import Settings
from tests.integration.ledger_farm import LEASE_SECONDS, new_ledger, new_worker, open_batch

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
    sights = follow(database, batch.id, SETTINGS, lambda: tended.append(time.monotonic()))
    next(sights)
    database.close()
    file.rename(away)
    file.mkdir()
    timer = Timer(1.7, come_back)
    timer.start()
    assert next(sights).batch == batch
    timer.join()
    said = capsys.readouterr().err
    assert said.count("does not answer") == said.count("; trying again\n") == 1
    end(database, batch.id)
    assert [sight.batch.ended for sight in sights] == [True]
    assert len(tended) == 2


def test_what_tending_raises_ends_the_following(database: Database, batch: BatchSummary) -> None:
    def tend() -> None:
        raise DatabaseUnavailableError("the workers ended")

    with pytest.raises(DatabaseUnavailableError, match="the workers ended"):
        list(follow(database, batch.id, SETTINGS, tend))


def test_live_workers_of_the_pair_are_seen(database: Database, batch: BatchSummary) -> None:
    sights = follow(database, batch.id, SETTINGS)
    assert next(sights) == Sight(batch, num_workers=0)
    new_worker(database, pair="other")
    new_worker(database)
    assert next(sights) == Sight(batch, num_workers=1)


def test_the_progress_of_a_pair_that_nobody_serves_says_what_to_do(
    database: Database, batch: BatchSummary, capsys: pytest.CaptureFixture[str]
) -> None:
    show_progress(iter([Sight(batch, 0), Sight(replace(batch, num_pending=0, num_done=4), 0)]))
    first, last = capsys.readouterr().err.splitlines()
    assert first == ("rendering 0/4 nobody serves pair tiny: start `nightshift worker --pair tiny`, or `nightshift up`")
    assert last == "rendering 4/4"


def test_the_line_tells_a_loading_worker_a_starting_one_and_none_apart(batch: BatchSummary) -> None:
    assert status_line(Sight(batch, 1), Rate()) == "waiting for the first image (a worker is loading)"
    for num_workers in (0, 1):
        tended = Sight(batch, num_workers, tended=True)
        assert status_line(tended, Rate()) == "waiting for the first image (a worker is starting)"


def test_a_worker_that_went_away_in_the_middle_is_missed_only_when_nothing_ends(batch: BatchSummary) -> None:
    half = replace(batch, num_pending=2, num_done=2)
    rate = Rate()
    assert "nobody serves" in status_line(Sight(half, 0), rate)
    assert status_line(Sight(half, 1), rate) == ""
    for at_seconds, num_ended in enumerate((0, 1, 2)):
        rate.note(float(at_seconds), num_ended)
    assert status_line(Sight(half, 0), rate) == "1.00 images/s, 0:02 left"
