"""Every command of docker-compose.yml, outside a container, with the same environment but for where the servers are."""

import json
import re
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.acceptance.conftest import SMALL, Farm, wait_until

SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((Path(__file__).parents[2] / "docker-compose.yml").read_text())[
    "services"
]
SERVERS = ("NIGHTSHIFT_DATABASE_URL", "NIGHTSHIFT_BROKER_URL", "NIGHTSHIFT_IMAGES_URL")


def environment(farm: Farm, name: str) -> dict[str, str]:
    """Of the service, where its servers and volumes are the test's."""
    given = {key: value for key, value in SERVICES[name]["environment"].items() if key not in SERVERS}
    assert given == {"NIGHTSHIFT_PAIR": "${NIGHTSHIFT_PAIR:-sdxl}"}
    return {"NIGHTSHIFT_PAIR": "tiny", "NIGHTSHIFT_IMAGES_URL": (farm.home / "images").as_uri()}


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
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/health", timeout=30) as answer:
        assert json.load(answer) == {"status": "ok"}
    postgres_farm.answer("submit", "--again", manifest, *SMALL)
    assert postgres_farm.run("watch").returncode == 0
    for name, process in services.items():
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, (name, postgres_farm.log(name))


def _port_of_web(farm: Farm) -> int:
    said = r"the web page is at http://0\.0\.0\.0:(\d+);"
    wait_until(lambda: re.search(said, farm.log("web")) is not None)
    found = re.search(said, farm.log("web"))
    assert found is not None
    return int(found[1])
