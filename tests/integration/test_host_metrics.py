"""What Prometheus is told of a host, and whether alerts and dashboard ask for what is really told."""

import json
import re
import socket
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Event, Thread
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from farm.broker import Broker
from farm.database import Database
from farm.gpus import GpuReading, Gpus
from farm.workers import WorkerIdentity, note_fingerprint, note_worker, register_worker, workers_by_id
from producer.dispatching.dispatcher import Dispatcher
from producer.dispatching.metrics import DispatcherMetrics, FarmCollector
from producer.web.metrics import Answered
from producer.web.prometheus import PrometheusWebMetrics
from schemas.errors import NightshiftError
from schemas.settings import Settings
from tests.integration.ledger_farm import new_ledger, open_batch
from worker.device_process.lease_keeper import LeaseKeeper
from worker.device_process.metrics import FOLDER_VARIABLE, Stage, WorkerMetrics, worker_metrics
from worker.host.assignments import Assignment
from worker.host.devices import Device
from worker.host.health import Health
from worker.host.host_metrics import GpuCollector, registry
from worker.host.seat import Seat
from worker.host.supervisor import Supervisor
from worker.host.told_metrics import counting_environment, told_metrics

ROOT = Path(__file__).parents[2]
ALERTS = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())
SCRAPED = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
IN_COMPOSE = yaml.safe_load((ROOT / "deploy/prometheus/compose.yml").read_text())
SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
DASHBOARD = json.loads((ROOT / "deploy/grafana/nightshift.json").read_text())
EXPRESSIONS = [
    *(rule["expr"] for group in ALERTS["groups"] for rule in group["rules"]),
    *(target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]),
]
#: Prometheus' own
ADDED = {"job", "instance"}
STAGES: list[Stage] = ["prepare", "wait", "render", "finish", "record"]
H200 = GpuReading("3", "NVIDIA H200", 2**30, 2**37, 0.75, 61, 412.5, "GPU-abc")

#: name → label → its values
Told = dict[str, dict[str, set[str]]]


@pytest.fixture
def database(sqlite_url: str) -> Iterator[Database]:
    with closing(new_ledger(sqlite_url)) as database:
        yield database


@pytest.fixture
def counting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which workers count, with this process as one of them."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    return tmp_path


def new_metrics(home: Path, device: str = "cuda:3") -> WorkerMetrics:
    return worker_metrics(Settings(home=home, worker_metrics_port=9465), "tiny", device)


def note_everything(metrics: WorkerMetrics) -> None:
    metrics.images(8)
    metrics.failed("device_memory", 2)
    metrics.given_back(3)
    metrics.lease_lost()
    metrics.pack_seconds(dict.fromkeys(STAGES, 1.5))


def told(registry: CollectorRegistry) -> Told:
    found: Told = defaultdict(lambda: defaultdict(set))
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            found[sample.name].update()
            for label, value in sample.labels.items():
                found[sample.name][label].add(value)
    return found


def host_of(database: Database, home: Path) -> Health:
    assignments = [Assignment(Device("cuda", "3"), "tiny"), Assignment(Device("cuda", "4"), "full")]
    return Health(database, Supervisor(database, Settings(home=home), assignments))


def of_web() -> CollectorRegistry:
    made = CollectorRegistry()
    metrics = PrometheusWebMetrics(made)
    metrics.answered(Answered("/batches/{batch_id}", "GET", 200, 0.01))
    metrics.submitted(3)
    for reason in ("token", "rate"):
        metrics.refused(reason)
    return made


@pytest.fixture
def everything(database: Database, redis_url: str, counting: Path) -> Told:
    """What a dispatcher, a host and the web page tell."""
    some_wait = {"pack_size": 1, "queued_packs_per_worker": 1}
    settings = Settings(home=counting, broker_url=redis_url, **some_wait)
    of_dispatcher = CollectorRegistry()
    open_batch(database, 3)
    open_batch(database, 3, pair="sdxl")
    register_worker(database, WorkerIdentity("w", "gpu7", 1, "cuda:3", "tiny"))
    note_fingerprint(database, "w", "f" * 64)
    with closing(Broker(redis_url)) as broker, closing(Dispatcher(database, broker, settings)) as dispatcher:
        of_dispatcher.register(FarmCollector(database, settings))
        DispatcherMetrics(of_dispatcher).note(dispatcher.tick(), 0.25)
        found = told(of_dispatcher)
    note_everything(new_metrics(counting))
    of_host = registry(host_of(database, counting), str(counting), lambda: Gpus("580.1", (H200,), {"4": "GPU is lost"}))
    return {
        **found,
        **told(of_host),
        **told(of_web()),
        "up": {"job": {config["job_name"] for config in SCRAPED["scrape_configs"]}},
    }


def parts(expression: Any, kind: type) -> list[Any]:
    """Its parts of this kind."""
    found: list[Any] = []

    def look(node: Any) -> None:
        if isinstance(node, kind):
            found.append(node)

    promql_parser.walk(expression, pre_visit=look)
    return found


def unknown(expression: Any, everything: Told) -> list[str]:
    """What it asks for that nobody tells."""
    wrong, labels = [], set(ADDED)
    for selector in parts(expression, promql_parser.VectorSelector):
        known = everything.get(selector.name)
        if known is None:
            wrong.append(selector.name)
            continue
        labels |= set(known)
        for matcher in selector.matchers.matchers:
            has = known.get(matcher.name, set())
            wanted = matcher.value.split("|") if re.fullmatch(r"[a-z|]+", matcher.value) else []
            if not has or not set(wanted) <= has:
                wrong.append(f"{selector.name}{{{matcher.name}={matcher.value}}}")
    for aggregate in parts(expression, promql_parser.AggregateExpr):
        by = set(aggregate.modifier.labels) if aggregate.modifier else set()
        wrong += [f"by {label}" for label in by - labels]
    return wrong


def test_alerts_and_dashboard_ask_for_what_is_told(everything: Told) -> None:
    asked = {text: unknown(promql_parser.parse(text), everything) for text in EXPRESSIONS}
    assert len(asked) > 25
    assert {text: wrong for text, wrong in asked.items() if wrong} == {}
    for wrong in (
        "sum by (colour) (nightshift_jobs)",
        'nightshift_jobs{state="dreaming"}',
        'nightshift_jobs{colour="red"}',
        "rate(nightshift_dreams_total[5m])",
    ):
        assert unknown(promql_parser.parse(wrong), everything)


def unsaid(rule: dict[str, Any]) -> set[str]:
    """Labels that an alert's words name and that its expression does not leave."""
    named = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
    expression = promql_parser.parse(rule["expr"])
    aggregates = parts(expression, promql_parser.AggregateExpr)
    left = [set(one.modifier.labels) if one.modifier else set() for one in aggregates]
    left += [set(equal_labels(argument)) for argument in absents(expression)]
    return named - set.intersection(*(left or [ADDED]))


def absents(expression: Any) -> list[Any]:
    """What it says is not there."""
    return [call.args[0] for call in parts(expression, promql_parser.Call) if call.func.name == "absent"]


def equal_labels(argument: Any) -> dict[str, str]:
    """What Prometheus knows of something that is absent: what its selector names, and of a comparison nothing."""
    if not isinstance(argument, promql_parser.VectorSelector):
        return {}
    equals = promql_parser.MatchOp.Equal
    return {one.name: one.value for one in argument.matchers.matchers if one.op == equals}


def test_what_an_alert_says_of_its_labels_is_left_of_them() -> None:
    rules = [rule for group in ALERTS["groups"] for rule in group["rules"]]
    assert {rule["alert"]: unsaid(rule) for rule in rules if unsaid(rule)} == {}
    said = {"summary": "{{ $labels.device }} {{ $labels.job }}"}
    for expression, wrong in (
        ("max by (job) (up)", {"device"}),
        ('absent(up{job="a"})', {"device"}),
        ('absent(up{job="a"} == 1)', {"device", "job"}),
        ('absent(up{job=~"a"})', {"device", "job"}),
    ):
        assert unsaid({"expr": expression, "annotations": said}) == wrong


def test_every_job_that_is_scraped_is_missed_when_it_is_gone_and_not_only_when_it_is_silent() -> None:
    rules = [promql_parser.parse(rule["expr"]) for group in ALERTS["groups"] for rule in group["rules"]]
    missed = [equal_labels(argument) for rule in rules for argument in absents(rule)]
    assert missed == [{"job": config["job_name"]} for config in IN_COMPOSE["scrape_configs"]]


def test_the_example_names_the_rules_and_every_metric_is_documented(everything: Told) -> None:
    assert SCRAPED["rule_files"] == ["alerts.yml"]
    said = (ROOT / "docs" / "operations.md").read_text()
    families = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name in everything if name != "up"}
    assert [name for name in sorted(families) if f"`{name}" not in said] == []


def test_the_example_for_compose_asks_each_service_at_the_port_that_it_is_given() -> None:
    settings = {"dispatcher": "METRICS_PORT", "worker": "WORKER_METRICS_PORT", "web": "WEB_METRICS_PORT"}
    asked = {}
    for config in IN_COMPOSE["scrape_configs"]:
        ((found,),) = [config["dns_sd_configs"]]
        ((service,),) = [found["names"]]
        assert (config["job_name"], found["type"]) == (f"nightshift-{service}", "A")
        asked[service] = str(found["port"])
    assert asked == {
        service: SERVICES[service]["environment"][f"NIGHTSHIFT_{name}"] for service, name in settings.items()
    }
    assert {config["job_name"] for config in SCRAPED["scrape_configs"]} == {f"nightshift-{name}" for name in asked}
    assert {key: IN_COMPOSE[key] for key in ("global", "rule_files")} == {
        key: SCRAPED[key] for key in ("global", "rule_files")
    }
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published == ["127.0.0.1:8470:8470"]


def test_what_dead_processes_counted_stays_and_the_next_one_counts_on(counting: Path) -> None:
    for _ in range(3):
        note_everything(new_metrics(counting))
    note_everything(new_metrics(counting, "cpu:0"))
    of_host = CollectorRegistry()
    MultiProcessCollector(of_host, str(counting))
    images = {"pair": "tiny", "device": "cuda:3"}
    assert of_host.get_sample_value("nightshift_images_total", images) == 24
    assert of_host.get_sample_value("nightshift_pack_seconds_count", {"pair": "tiny", "stage": "render"}) == 4
    assert len(list(counting.glob("counter_*.db"))) == 2


def test_a_supervisor_serves_what_is_counted_in_the_folder_that_it_gives_its_processes(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    settings, host = Settings(home=tmp_path, worker_metrics_port=port), host_of(database, tmp_path)
    with counting_environment(settings) as environment, told_metrics(host, settings, environment):
        monkeypatch.setenv(FOLDER_VARIABLE, environment[FOLDER_VARIABLE])
        note_everything(new_metrics(tmp_path))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            told = answer.read().decode()
    assert 'nightshift_images_total{device="cuda:3",pair="tiny"} 8.0' in told
    assert 'nightshift_restarts_total{device="cuda:4",pair="full"} 0.0' in told
    assert not Path(environment[FOLDER_VARIABLE]).exists()
    with counting_environment(Settings(home=tmp_path)) as nothing, told_metrics(host, settings, nothing):
        assert nothing == {}


def test_without_the_setting_nothing_is_noted(tmp_path: Path) -> None:
    metrics = worker_metrics(Settings(home=tmp_path), "tiny", "cpu")
    note_everything(metrics)
    assert type(metrics) is WorkerMetrics


def test_a_host_tells_the_states_of_its_devices_also_without_a_ledger(database: Database, counting: Path) -> None:
    host = host_of(database, counting)
    ready, failed = host.supervisor.seats
    register_worker(database, WorkerIdentity("w", "gpu7", 1, "cuda:3", "tiny"))
    note_worker(database, "w", "ready")
    ready.worker_id, ready.process, failed.final_code, failed.num_deaths = "w", SimpleProcess(), 4, 3  # type: ignore[assignment]
    no_driver = Gpus(None)

    def of(health: Health) -> CollectorRegistry:
        return registry(health, str(counting), lambda: no_driver)

    first, second = {"device": "cuda:3", "pair": "tiny"}, {"device": "cuda:4", "pair": "full"}
    with closing(Database("postgresql://127.0.0.1:1/none")) as gone:
        for made in (of(host), of(Health(gone, host.supervisor))):
            assert made.get_sample_value("nightshift_restarts_total", second) == 3
            assert made.get_sample_value("nightshift_device_out_of_service", first) == 0
            assert made.get_sample_value("nightshift_device_out_of_service", second) == 1
            assert made.get_sample_value("nightshift_gpu_driver_up") is None
    assert of(host).get_sample_value("nightshift_worker_processes", {**first, "state": "ready"}) == 1
    assert of(host).get_sample_value("nightshift_worker_processes", {**second, "state": "out of service"}) == 1


class SimpleProcess:
    pid = 1


def test_gpus_are_named_as_their_workers_and_what_one_does_not_measure_is_not_told() -> None:
    old = GpuReading("0", "NVIDIA T4", 1, 2, None, None, None, "GPU-old")
    collector = GpuCollector([Seat(Device("cuda", "GPU-ab"), "tiny")], lambda: Gpus("580.1", (H200, old)))
    families = {family.name: family.samples for family in collector.collect()}
    used = families["nightshift_gpu_memory_used_bytes"]
    assert [(sample.labels["device"], sample.value) for sample in used] == [("cuda:GPU-ab", 2**30), ("cuda:0", 1)]
    assert [sample.value for sample in families["nightshift_gpu_power_watts"]] == [412.5]
    assert families["nightshift_gpu_driver_up"][0].value == 1


def test_a_driver_that_hangs_holds_up_one_scrape_and_no_other() -> None:
    entered, freed = Event(), Event()

    def hang() -> Gpus:
        entered.set()
        assert freed.wait(30)
        raise NightshiftError("the NVIDIA driver does not answer")

    collector = GpuCollector([], hang)
    first: list[float] = []
    waits = Thread(target=lambda: first.extend(family.samples[0].value for family in collector.collect()))
    waits.start()
    assert entered.wait(30)
    assert [family.samples[0].value for family in collector.collect()] == [0]
    freed.set()
    waits.join()
    assert first == [0]


def test_a_worker_says_with_its_heartbeat_how_its_gpu_is(database: Database) -> None:
    register_worker(database, WorkerIdentity("w", "gpu7", 1, "cuda:3", "tiny"))
    readings: list[dict[str, Any] | None] = [{"memory_used_bytes": 2**30, "at": "2026-11-21T22:00:00+00:00"}, None]
    keeper = LeaseKeeper(database, "w", 60, lambda: None, iter(readings).__next__)
    for reading in readings.copy():
        keeper.look()
        assert workers_by_id(database, ["w"])["w"].reading == reading
