"""Which devices are drained, by the rows of their workers, also weeks later. For supervisors: test_many_devices."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from typer.testing import CliRunner

from farm.database import Database
from farm.draining import drain, drained, stop_draining
from farm.workers import WorkerIdentity, note_worker, register_worker
from nightshift import app
from schemas.errors import InputError, NotFoundError
from schemas.tables import Worker
from tests.integration.ledger_farm import TestClock

WEEKS = 21 * 86_400.0
Seat = Callable[..., None]


@pytest.fixture
def begins(on_sqlite: Database) -> Seat:
    def begin(worker_id: str, device: str = "cuda:0", host: str = "gpu7") -> None:
        register_worker(on_sqlite, WorkerIdentity(worker_id, host, 1, device, "sdxl"))

    return begin


def ids(rows: Any) -> list[str]:
    return [row.id for row in rows]


def test_a_device_stays_drained_until_that_is_taken_back(on_sqlite: Database, clock: TestClock, begins: Seat) -> None:
    begins("old")
    drain(on_sqlite, "gpu7")
    clock.advance(10)
    note_worker(on_sqlite, "old", "stopped")
    clock.advance(WEEKS)
    assert ids(drained(on_sqlite)) == ["old"]
    assert ids(stop_draining(on_sqlite, "gpu7")) == ["old"]
    assert drained(on_sqlite) == stop_draining(on_sqlite, "gpu7") == []


def test_one_whose_supervisor_was_started_anew_is_drained_no_more(
    on_sqlite: Database, clock: TestClock, begins: Seat
) -> None:
    """Its old worker keeps the mark, which means nothing any more."""
    begins("old")
    drain(on_sqlite, "gpu7")
    note_worker(on_sqlite, "old", "stopped")
    clock.advance(WEEKS)
    begins("new")
    assert drained(on_sqlite) == []
    assert ids(drain(on_sqlite, "gpu7/cuda:0")) == ["new"]
    assert ids(stop_draining(on_sqlite, "gpu7")) == ["new"]
    with on_sqlite.begin(read_only=True) as tx:
        assert tx.execute(Worker.__table__.select().where(Worker.draining_since.is_not(None))).all() == []


def test_workers_that_share_a_cpu_are_drained_each_by_itself(
    on_sqlite: Database, clock: TestClock, begins: Seat
) -> None:
    begins("one", "cpu")
    clock.advance(5)
    begins("two", "cpu")
    clock.advance(5)
    note_worker(on_sqlite, "one", "ready")
    drain(on_sqlite, "one")
    assert ids(drained(on_sqlite)) == ["one"]


def test_the_command_lists_them(on_sqlite: Database, begins: Seat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_DATABASE_URL", str(on_sqlite.engine.url))

    def said(*words: str) -> str:
        done = CliRunner().invoke(app, ["drain", *words], catch_exceptions=False)
        assert done.exit_code == 0
        return done.stdout.strip()

    assert said() == "no device is drained"
    begins("w")
    begins("other", "cuda:1")
    drain(on_sqlite, "gpu7/cuda:0")
    assert said() == "cuda:0 of gpu7, pair sdxl: drained since 2026-11-21 22:00 UTC, its worker is loading"
    assert json.loads(said("--json")) == {
        "drained": [
            {"id": "w", "host": "gpu7", "device": "cuda:0", "pair": "sdxl", "state": "loading",
             "since": datetime(2026, 11, 21, 22, tzinfo=UTC).isoformat()}
        ]
    }  # fmt: skip
    assert said("gpu7", "--undo") == "cuda:0 of gpu7, pair sdxl: may take packs again"
    for words, error in ((["--undo"], InputError), (["gpu7", "--undo"], NotFoundError)):
        with pytest.raises(error, match="`nightshift drain` lists"):
            CliRunner().invoke(app, ["drain", *words], catch_exceptions=False)
