"""Every command of ours in docker-compose.yml, outside a container, with the same environment but for where the servers
are. Those of the servers: ``tests/integration/test_compose_servers.py``."""

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import text

from tests.acceptance.conftest import SMALL, Farm, wait_until

SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((Path(__file__).parents[2] / "docker-compose.yml").read_text())[
    "services"
]
METRICS_PORTS = ("NIGHTSHIFT_METRICS_PORT", "NIGHTSHIFT_WORKER_METRICS_PORT", "NIGHTSHIFT_WEB_METRICS_PORT")
#: not of the Compose file
HEALTH_PORT = "NIGHTSHIFT_HEALTH_PORT"
SERVERS = ("NIGHTSHIFT_DATABASE_URL", "NIGHTSHIFT_BROKER_URL", "NIGHTSHIFT_IMAGES_URL")
#: where the home is
VOLUME = "/home/nightshift/.nightshift"
#: by a dispatcher, a worker and the page, in this order
TOLD = ("nightshift_ledger_up 1.0", 'nightshift_worker_processes{device="cpu",pair="tiny",state="ready"} 1.0',
        'nightshift_web_requests_total{method="GET",route="/api/v1/health",status="200"}')  # fmt: skip
#: of PostgreSQL's hundred: one each by two dispatchers, the page, the worker process and this test, no supervisor
KEPT_CONNECTIONS = 5


def environment(farm: Farm, name: str) -> dict[str, str]:
    """Of the service, where its servers and volumes are the test's."""
    given = {key: value for key, value in SERVICES[name]["environment"].items() if key not in SERVERS}
    folders = {"TMPDIR": str(farm.home)} if given.pop("TMPDIR", None) == VOLUME else {}
    assert bool(folders) == (name != "worker")
    assert given == {
        "NIGHTSHIFT_PAIR": "${NIGHTSHIFT_PAIR:-sdxl}",
        "NIGHTSHIFT_METRICS_HOST": "0.0.0.0",
        **dict(zip(METRICS_PORTS, ("9464", "9465", "9466"), strict=True)),
    }
    return {
        **given,
        **folders,
        "NIGHTSHIFT_PAIR": "tiny",
        "NIGHTSHIFT_IMAGES_URL": (farm.home / "images").as_uri(),
        **{name: str(free_port(name)) for name in (*METRICS_PORTS, HEALTH_PORT)},
    }


@cache
def free_port(_name: str) -> int:
    """One for each name."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def services(postgres_farm: Farm) -> Iterator[dict[str, "subprocess.Popen[bytes]"]]:
    """Those that run on, started as Compose starts them; the worker is there already."""
    assert postgres_farm.run(*SERVICES["migrate"]["command"], **environment(postgres_farm, "migrate")).returncode == 0
    named = postgres_farm.run("token", "new", "compose", "--scope", "read", **environment(postgres_farm, "dispatcher"))
    assert named.returncode == 0, named.stderr
    started = {
        name: postgres_farm.start(*_on_a_free_port(SERVICES[name]["command"]), **environment(postgres_farm, name))
        for name in ("dispatcher", "web", "worker")
    }
    yield started
    for process in started.values():
        if process.poll() is None:
            process.kill()


def _on_a_free_port(command: list[str]) -> list[str]:
    return [*command, "--port", "0"] if command[0] == "web" else command


def test_the_services_start_are_well_render_and_stop_gently(
    postgres_farm: Farm, services: dict[str, "subprocess.Popen[bytes]"], manifest: Path
) -> None:
    wait_until(lambda: bool(postgres_farm.worker_pids()))
    for name in ("dispatcher", "worker"):
        kind, program, *command = SERVICES[name]["healthcheck"]["test"]
        assert (kind, program) == ("CMD", "nightshift")
        done = postgres_farm.run(*command, **environment(postgres_farm, name))
        assert "BAD  ledger" not in done.stdout, done.stdout
        assert "BAD  worker" not in done.stdout, done.stdout
    port = _port_of_web(postgres_farm)
    assert _web_is_well(port)
    postgres_farm.answer("submit", "--again", manifest, *SMALL)
    assert postgres_farm.run("watch").returncode == 0
    for name, metric in zip(METRICS_PORTS, TOLD, strict=True):
        with urllib.request.urlopen(f"http://127.0.0.1:{free_port(name)}/metrics", timeout=30) as answer:
            assert metric in answer.read().decode()
    with urllib.request.urlopen(f"http://127.0.0.1:{free_port(HEALTH_PORT)}/readyz", timeout=30) as answer:
        assert [device["state"] for device in json.load(answer)["devices"]] == ["ready"]
    assert re.search(r"^\S+ \S+ cpu INFO ready: waiting for packs of tiny$", postgres_farm.log("worker"), re.M)
    wait_until(lambda: _num_connections(postgres_farm) <= KEPT_CONNECTIONS)
    for name, process in services.items():
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, (name, postgres_farm.log(name))
    assert not _web_is_well(port)


def _num_connections(farm: Farm) -> int:
    asked = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'nightshift'"
    )
    return int(farm.rows(text(asked))[0][0])  # type: ignore[arg-type]


def _web_is_well(port: int) -> bool:
    """What the health check of the service says, of a page at this port."""
    kind, program, option, script = SERVICES["web"]["healthcheck"]["test"]
    assert (kind, program, option, script.count(":8470/")) == ("CMD", "python", "-c", 1)
    return subprocess.run([sys.executable, option, script.replace(":8470/", f":{port}/")]).returncode == 0


def _port_of_web(farm: Farm) -> int:
    said = r"the web page is at http://0\.0\.0\.0:(\d+);"
    wait_until(lambda: re.search(said, farm.log("web")) is not None)
    found = re.search(said, farm.log("web"))
    assert found is not None
    return int(found[1])
