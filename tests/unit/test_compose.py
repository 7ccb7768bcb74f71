"""docker-compose.yml against the Compose specification, and against the commands, settings and targets it names."""

import json
import re
from itertools import takewhile
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from fastapi.routing import APIRoute

from nightshift import COMMANDS, loaded
from producer.web.api import session
from schemas.settings import Settings
from worker.host.supervisor import KILL_SECONDS

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = sorted(name for name, service in SERVICES.items() if "build" in service)
RUN_ON = sorted(name for name, service in SERVICES.items() if service["restart"] == "unless-stopped")
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def assert_is_a_command(words: list[str]) -> None:
    """Fails unless these words lead through the `nightshift` command's groups to a command."""
    assert words[0] in COMMANDS, f"nightshift has no command {words[0]!r}"
    command = loaded(words[0])
    for word in takewhile(lambda word: not word.startswith("-"), words[1:]):
        assert word in getattr(command, "commands", {}), f"nightshift has no command {' '.join(words)!r}"
        command = command.commands[word]
    assert not hasattr(command, "commands"), f"nightshift {' '.join(words)} is a group, not a command"


def test_the_compose_file_follows_the_specification() -> None:
    schema = json.loads((ROOT / "tests" / "data" / "compose-spec.json").read_text())

    jsonschema.Draft201909Validator(schema).validate(COMPOSE)


def test_the_farm_is_whole() -> None:
    assert sorted(SERVICES) == ["dispatcher", "migrate", "postgres", "redis", "web", "worker"]
    assert OURS == ["dispatcher", "migrate", "web", "worker"]
    assert RUN_ON == ["dispatcher", "postgres", "redis", "web", "worker"]


@pytest.mark.parametrize("name", OURS)
def test_nothing_of_ours_is_root_or_writes_outside_its_volumes(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "USER nightshift" in DOCKERFILE


def test_the_page_is_open_to_this_machine_alone_and_asked_whether_it_is_well() -> None:
    assert SERVICES["web"]["ports"] == ["127.0.0.1:8470:8470"]
    (script,) = re.findall(r"urlopen\('http://127.0.0.1:8470(\S+)'", SERVICES["web"]["healthcheck"]["test"][-1])
    assert script in {f"/api/v1{route.path}" for route in session.router.routes if isinstance(route, APIRoute)}


@pytest.mark.parametrize("name", RUN_ON)
def test_every_service_that_runs_on_has_a_health_check(name: str) -> None:
    kind, *command = SERVICES[name]["healthcheck"]["test"]

    assert kind in ("CMD", "CMD-SHELL")
    assert command


@pytest.mark.parametrize("name", OURS)
def test_every_service_of_ours_runs_a_command_that_nightshift_has(name: str) -> None:
    assert_is_a_command(SERVICES[name]["command"])


@pytest.mark.parametrize("name", ["dispatcher", "worker"])
def test_a_service_of_ours_is_well_when_the_doctor_says_so(name: str) -> None:
    kind, program, *command = SERVICES[name]["healthcheck"]["test"]

    assert (kind, program) == ("CMD", "nightshift")
    assert_is_a_command(command)


@pytest.mark.parametrize("command", re.findall(r"(?:HEALTHCHECK .*)?CMD (\[.*\])", DOCKERFILE))
def test_every_command_in_the_dockerfile_is_one_that_nightshift_has(command: str) -> None:
    assert_is_a_command([word for word in json.loads(command) if word != "nightshift"])


@pytest.mark.parametrize("name", OURS)
def test_every_nightshift_variable_is_a_setting(name: str) -> None:
    variables = set(SERVICES[name]["environment"]) - {"TMPDIR"}

    assert variables <= {f"NIGHTSHIFT_{setting.upper()}" for setting in Settings.model_fields}
    assert variables >= {"NIGHTSHIFT_DATABASE_URL", "NIGHTSHIFT_BROKER_URL", "NIGHTSHIFT_IMAGES_URL", "NIGHTSHIFT_PAIR"}


@pytest.mark.parametrize("name", OURS)
def test_every_build_target_stands_in_the_dockerfile(name: str) -> None:
    assert SERVICES[name]["build"]["target"] in re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE)


@pytest.mark.parametrize("name", ["dispatcher", "web", "worker"])
def test_nothing_starts_before_the_servers_are_well_and_the_tables_are_there(name: str) -> None:
    assert SERVICES[name]["depends_on"] == {
        "redis": {"condition": "service_healthy"},
        "postgres": {"condition": "service_healthy"},
        "migrate": {"condition": "service_completed_successfully"},
    }


def test_every_volume_that_a_service_mounts_is_declared() -> None:
    mounted = {volume.split(":")[0] for service in SERVICES.values() for volume in service["volumes"]}

    assert mounted == set(COMPOSE["volumes"])


def test_images_are_stored_in_the_volume_that_the_services_share() -> None:
    for name in OURS:
        assert SERVICES[name]["environment"]["NIGHTSHIFT_IMAGES_URL"] == "file:///images"
        assert "images:/images" in SERVICES[name]["volumes"]


@pytest.mark.parametrize("name", ["dispatcher", "migrate", "web"])
def test_what_producers_keep_for_a_while_lies_in_a_volume_and_not_in_main_memory(name: str) -> None:
    service = SERVICES[name]
    volumes = {volume.split(":")[1] for volume in service["volumes"]}

    assert service["tmpfs"] == ["/tmp", "/home/nightshift:uid=1000,gid=1000"]
    assert service["environment"]["TMPDIR"] in volumes
    assert re.search(rf"install -d -o nightshift .*{service['environment']['TMPDIR']}", DOCKERFILE)


def test_a_full_or_restarted_redis_forgets_nothing_silently() -> None:
    command = SERVICES["redis"]["command"]

    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command


def test_no_password_is_written_down() -> None:
    text = (ROOT / "docker-compose.yml").read_text()

    assert (
        re.findall(r"(?:PASSWORD|AUTH): (?!\$\{\w+:\?)|--requirepass (?!\$\{\w+:\?)|://\w*:(?!\$\{\w+:\?)", text) == []
    )


def test_the_worker_reserves_gpus_and_has_time_to_give_back_its_pack() -> None:
    (device,) = SERVICES["worker"]["deploy"]["resources"]["reservations"]["devices"]

    assert "gpu" in device["capabilities"]
    grace_seconds = int(SERVICES["worker"]["stop_grace_period"].removesuffix("s"))
    assert grace_seconds > Settings.model_fields["stop_seconds"].default + KILL_SECONDS
