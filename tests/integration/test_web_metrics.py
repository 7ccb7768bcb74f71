"""What Prometheus is told of the web page, by requests to the real application on a real ledger."""

import asyncio
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import text
from starlette.testclient import TestClient

from farm.metrics_server import served
from producer.web.api.events import _stream
from producer.web.metrics import TOLD_TO_NOBODY, Answered
from producer.web.prometheus import PrometheusWebMetrics
from producer.web.told_metrics import told_metrics
from schemas.errors import SettingsError
from schemas.settings import Settings
from schemas.token import Scope
from tests.integration.ledger_farm import open_batch
from tests.integration.web_client import HERE
from tests.integration.web_farm import FarmWithPage, farm_with_page


@pytest.fixture(scope="module")
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture(scope="module")
def farm(registry: CollectorRegistry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarmWithPage]:
    with farm_with_page(tmp_path_factory.mktemp("web"), PrometheusWebMetrics(registry)) as farm:
        yield farm


@pytest.fixture
def here(farm: FarmWithPage) -> Iterator[TestClient]:
    with farm.client(peer=HERE) as client:
        yield client


class Told:
    """What is told more than when this was made."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._before = self._samples()

    def _samples(self) -> dict[tuple[str, tuple[str, ...]], float]:
        return {
            (sample.name.removeprefix("nightshift_web_"), tuple(sample.labels.values())): sample.value
            for family in self._registry.collect()
            for sample in family.samples
            if not sample.name.endswith("_created")
        }

    def __getitem__(self, key: tuple[str, tuple[str, ...]]) -> float:
        return self._samples().get(key, 0.0) - self._before.get(key, 0.0)

    def requests(self) -> dict[tuple[str, ...], float]:
        """(route, method, status) → number"""
        keys = [key for key in self._samples() if key[0] == "requests_total"]
        return {key[1]: self[key] for key in keys if self[key]}


@pytest.fixture
def told(registry: CollectorRegistry) -> Told:
    return Told(registry)


def test_requests_are_told_by_the_routes_template_method_and_status(
    farm: FarmWithPage, here: TestClient, told: Told
) -> None:
    one, other = open_batch(farm.database, 1), open_batch(farm.database, 1)
    for batch_id in (one, other):
        assert here.get(f"/api/v1/batches/{batch_id}").status_code == 200
        assert here.get(f"/batches/{batch_id}").status_code == 200
    assert here.post(f"/api/v1/batches/{one}/pause").status_code == 200
    assert here.get("/static/style.css").status_code == 200
    assert here.get("/api/v1/batches/9999").status_code == 404
    assert told.requests() == {
        ("/api/v1/batches/{batch_id}", "GET", "200"): 2,
        ("/batches/{batch_id}", "GET", "200"): 2,
        ("/api/v1/batches/{batch_id}/pause", "POST", "200"): 1,
        ("/static", "GET", "200"): 1,
        ("/api/v1/batches/{batch_id}", "GET", "404"): 1,
    }
    assert told["request_seconds_count", ("/batches/{batch_id}", "GET")] == 2
    assert told["request_seconds_sum", ("/batches/{batch_id}", "GET")] > 0


def test_what_strangers_make_up_makes_no_new_series(here: TestClient, told: Told) -> None:
    for path in ("/nowhere", "/api/v1/nowhere", "/wp-login.php"):
        here.get(path)
    here.request("BREW", "/nowhere")
    assert told.requests() == {("none", "GET", "404"): 3, ("none", "other", "404"): 1}


def test_refusals_are_told_by_reason_to_people_as_to_programs(farm: FarmWithPage, here: TestClient, told: Told) -> None:
    people = {"accept": "text/html"}
    with farm.client() as stranger:
        assert stranger.get("/api/v1/batches").status_code == 401
        assert stranger.get("/", headers=people, follow_redirects=False).status_code == 303
    with farm.client(farm.token(Scope.READ)) as reader:
        assert reader.post("/api/v1/batches", json={"rows": [{"prompt": "x"}]}).status_code == 403
    assert here.get("/", headers={"host": "evil.example"}).status_code == 421
    assert here.post("/logout", headers={"origin": "https://evil.example"}).status_code == 403
    assert here.post("/api/v1/batches", json={"rows": [{"prompt": ""}]}).status_code == 422
    assert here.get("/batches/9999", headers=people).status_code == 404
    reasons = ("token", "scope", "host", "cross_site", "manifest", "not_found")
    assert {reason: told["refusals_total", (reason,)] for reason in reasons} == {
        "token": 2, "scope": 1, "host": 1, "cross_site": 1, "manifest": 1, "not_found": 1,
    }  # fmt: skip
    assert told["requests_total", ("none", "GET", "421")] == 1


def test_jobs_count_once_however_often_the_same_is_submitted(here: TestClient, told: Told) -> None:
    for _ in range(2):
        rows = {"rows": [{"prompt": "a cat"}, {"prompt": "a dog"}]}
        assert here.post("/api/v1/batches", json=rows, headers={"idempotency-key": "one"}).status_code == 201
    assert here.post("/api/v1/manifests?file=a.txt", content=b"a fox").status_code == 201
    assert here.post("/api/v1/batches", json={"rows": [{"prompt": ""}, {"prompt": "a cow"}]}).status_code == 422
    assert told["jobs_submitted_total", ()] == 3


def test_streams_of_events_are_counted_while_they_are_open(farm: FarmWithPage, told: Told) -> None:
    async def listen() -> None:
        first, second = _stream(farm.page), _stream(farm.page)
        await anext(first)
        await anext(second)
        assert told["event_streams", ()] == 2
        await first.aclose()
        assert told["event_streams", ()] == 1
        await second.aclose()

    asyncio.run(listen())
    assert told["event_streams", ()] == 0


def test_a_mistake_of_ours_counts_as_one(farm: FarmWithPage, here: TestClient, told: Told) -> None:
    batch_id = open_batch(farm.database, 1)
    with farm.database.begin() as tx:
        tx.execute(text(f"UPDATE batches SET created_at = 'never' WHERE id = {batch_id}"))
    with pytest.raises(ValueError, match="never"):
        here.get(f"/api/v1/batches/{batch_id}")
    assert told["requests_total", ("/api/v1/batches/{batch_id}", "GET", "500")] == 1
    assert told["refusals_total", ("error",)] == 1


def test_it_is_told_where_the_setting_says_and_to_nobody_without_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with told_metrics(Settings(home=tmp_path, web_metrics_port=port)) as metrics:
        metrics.answered(Answered("/", "GET", 200, 0.01))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            assert 'nightshift_web_requests_total{method="GET",route="/",status="200"} 1.0' in answer.read().decode()
    with told_metrics(Settings(home=tmp_path)) as metrics:
        assert metrics is TOLD_TO_NOBODY


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with (
        served(CollectorRegistry(), "127.0.0.1", 0) as port,
        pytest.raises(SettingsError, match=f"cannot serve metrics at 127.0.0.1:{port}"),
        told_metrics(Settings(home=tmp_path, web_metrics_port=port)),
    ):
        pass
