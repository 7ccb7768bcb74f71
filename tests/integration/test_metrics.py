"""What Prometheus is told, over HTTP, of a real ledger and a real Redis."""

import urllib.request
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from farm import batches, ledger
from farm.broker import Broker
from farm.database import Database
from farm.metrics_server import served
from farm.workers import note_fingerprint
from producer.dispatching import metrics
from producer.dispatching.dispatcher import Dispatcher
from producer.dispatching.metrics import DispatcherMetrics, FarmCollector
from producer.dispatching.told_metrics import told_metrics
from producer.questions.farm_figures import farm_figures
from schemas.errors import SettingsError
from schemas.settings import Settings
from schemas.timing import Timing
from tests.integration.ledger_farm import TestClock, new_worker, open_batch, staged

Samples = dict[tuple[str, tuple[str, ...]], float]


def scraped(port: int) -> Samples:
    """(name, label values in the order of their names) → value"""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    return {
        (
            sample.name.removeprefix("nightshift_"),
            tuple(value for _, value in sorted(sample.labels.items())),
        ): sample.value
        for family in families
        for sample in family.samples
    }


def test_the_farm_is_told_of_by_state_priority_and_pair(
    on_sqlite: Database, broker: Broker, redis_url: str, clock: TestClock, tmp_path: Path
) -> None:
    settings = Settings(home=tmp_path, broker_url=redis_url, pack_size=2, queued_packs_per_worker=2)
    open_batch(on_sqlite, 7, priority=8)
    open_batch(on_sqlite, 3, priority=2, pair="sdxl")
    clock.advance(90)
    note_fingerprint(on_sqlite, new_worker(on_sqlite), "a" * 64)
    registry = CollectorRegistry()
    registry.register(FarmCollector(on_sqlite, settings))
    with closing(Dispatcher(on_sqlite, broker, settings)) as dispatcher:
        DispatcherMetrics(registry).note(dispatcher.tick(), 0.25)
    with served(registry, "127.0.0.1", 0) as port:
        told = scraped(port)

    assert told["jobs", ("8", "queued")] == 4
    assert told["jobs", ("8", "pending")] == 3
    assert told["jobs", ("2", "done")] == 0
    assert told["batches", ("open",)] == 2
    assert told["packs", ("tiny", "queued")] == told["queue_messages", ("tiny",)] == 2
    assert told["workers", ("tiny", "loading")] == told["pair_fingerprints", ("tiny",)] == 1
    assert told["oldest_pending_seconds", ("8",)] == 90
    assert told["unserved_pair", ("sdxl",)] == 1
    assert ("unserved_pair", ("tiny",)) not in told
    assert told["packs_released_total", ()] == 4
    assert told["tick_seconds_sum", ()] == 0.25
    assert told["ledger_up", ()] == told["redis_up", ()] == 1


def test_a_batch_is_as_old_as_the_hours_in_which_it_could_run(on_sqlite: Database, clock: TestClock) -> None:
    def windowed(window: str | None, priority: int) -> None:
        batch_id = batches.create_batch(on_sqlite, "cats", "tiny", priority, Timing(window))
        ledger.stage_jobs(on_sqlite, batch_id, [staged(1)])
        batches.open_batch(on_sqlite, batch_id)

    def hours(farm_window: str = "") -> dict[int, float]:
        oldest = farm_figures(on_sqlite, 60.0, farm_window).oldest_pending_seconds
        return {priority: seconds / 3600 for priority, seconds in oldest.items()}

    windowed("23:00-06:00 UTC", 8)  # it is 22:00
    windowed("21:00-00:00 UTC", 8)
    windowed("08:00-09:00 UTC", 5)
    windowed(None, 2)
    clock.advance(12 * 3600)
    windowed("08:00-11:00 UTC", 5)
    assert hours() == {8: 7, 5: 1, 2: 12}
    assert hours("20:00-04:00 UTC") == {8: 5, 5: 0, 2: 6}


def test_scrapers_cost_the_ledger_one_look_in_five_seconds(
    on_sqlite: Database, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(metrics.time, "monotonic", lambda: now)
    collector = FarmCollector(on_sqlite, Settings(home=tmp_path, broker_url=redis_url))

    def num_pending() -> float:
        families = {family.name: family for family in collector.collect()}
        return sum(s.value for s in families["nightshift_jobs"].samples if s.labels["state"] == "pending")

    open_batch(on_sqlite, 2)
    assert num_pending() == 2
    open_batch(on_sqlite, 2)
    now = 4.9
    assert num_pending() == 2
    now = 5.0
    assert num_pending() == 4


def test_a_redis_or_ledger_that_is_down_is_told_of_and_the_rest_too(
    on_sqlite: Database, redis_url: str, tmp_path: Path
) -> None:
    def told(database: Database, url: str) -> dict[str, float]:
        families = FarmCollector(database, Settings(home=tmp_path, broker_url=url)).collect()
        return {
            family.name.removeprefix("nightshift_"): sum(one.value for one in family.samples) for family in families
        }

    nowhere = "redis://127.0.0.1:1/0"
    with closing(Database("postgresql://127.0.0.1:1/none")) as gone:
        assert told(gone, redis_url) == {"ledger_up": 0, "redis_up": 1, "queue_messages": 0}
        assert told(gone, nowhere) == {"ledger_up": 0, "redis_up": 0}
    open_batch(on_sqlite, 2)
    up, down = told(on_sqlite, redis_url), told(on_sqlite, nowhere)  # of a farm where nothing is queued, and none lives
    assert (up["ledger_up"], up["redis_up"], up["jobs"]) == (1, 1, 2)
    assert (down["ledger_up"], down["redis_up"], down["jobs"]) == (1, 0, 2)


def test_a_port_that_is_taken_is_named(on_sqlite: Database, tmp_path: Path) -> None:
    with served(CollectorRegistry(), "127.0.0.1", 0) as port:
        settings = Settings(home=tmp_path, metrics_port=port)
        with (
            pytest.raises(SettingsError, match=f"cannot serve metrics at 127.0.0.1:{port}: Address already in use"),
            told_metrics(on_sqlite, settings),
        ):
            pass
