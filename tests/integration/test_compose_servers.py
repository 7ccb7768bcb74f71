"""The servers of docker-compose.yml: Redis by its command line, and the health checks of both, outside a container.

Other than there are only the places: a socket in a folder of the test's for Redis, the tests' own PostgreSQL.
"""

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from redis import Redis

from farm.embedded_redis import redis_executable
from farm.tether import tethered
from tests.servers import PostgresServer, Server, temporary_folder

SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((Path(__file__).parents[2] / "docker-compose.yml").read_text())[
    "services"
]
PASSWORD = "letters0and1digits"


def given(text: str) -> str:
    """As Compose reads it, with the password of ``.env``."""
    return re.sub(r"\$\{REDIS_PASSWORD:\?[^}]*\}", PASSWORD, text)


def is_well(service: str, place: tuple[str, str], programs: Path, password: str = PASSWORD) -> bool:
    """What the health check of the service says. ``place``: words of it, and what stands there in their place."""
    kind, check = SERVICES[service]["healthcheck"]["test"]
    assert (kind, check.count(place[0])) == ("CMD-SHELL", 1)
    there = {"PATH": os.pathsep.join([str(programs), os.environ["PATH"]])}
    if service == "redis":
        assert set(SERVICES[service]["environment"]) == {"REDISCLI_AUTH"}
        assert given(SERVICES[service]["environment"]["REDISCLI_AUTH"]) == PASSWORD
        there["REDISCLI_AUTH"] = password
    done = subprocess.run(["/bin/sh", "-c", check.replace(*place)], env=there, capture_output=True)
    return done.returncode == 0


@pytest.fixture
def folder() -> Iterator[Path]:
    with temporary_folder() as folder:
        yield folder


@contextmanager
def running(folder: Path) -> Iterator[Redis]:
    """By the command of the service, from when it is well until it is killed."""
    program, *options = shlex.split(given(SERVICES["redis"]["command"]))
    assert program == redis_executable().name
    socket = folder / "redis.sock"
    options += ["--port", "0", "--unixsocket", str(socket), "--dir", str(folder)]
    server = Server(tethered([str(redis_executable()), *options]), folder / "redis.log")
    server.start(lambda: redis_is_well(folder))
    with closing(Redis(unix_socket_path=str(socket), password=PASSWORD)) as client:
        yield client
    server.kill()


def redis_is_well(folder: Path, password: str = PASSWORD) -> bool:
    place = ("redis-cli", f"redis-cli -s {folder}/redis.sock")
    return is_well("redis", place, redis_executable().parent, password)


def test_redis_is_well_keeps_its_queues_when_it_is_killed_and_drops_none_silently(folder: Path) -> None:
    assert not redis_is_well(folder)
    with running(folder) as client:
        assert not redis_is_well(folder, "another")
        assert client.config_get("maxmemory") == {"maxmemory": str(256 * 2**20)}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("proto-max-bulk-len") == {"proto-max-bulk-len": str(2**20)}
        client.lpush("nightshift.tiny", "a hint")
    assert not redis_is_well(folder)
    with running(folder) as client:
        assert client.lrange("nightshift.tiny", 0, -1) == [b"a hint"]


def test_postgresql_is_well_when_it_takes_connections(postgres_server: PostgresServer) -> None:
    with postgres_server.new_database() as url:
        (folder,) = parse_qs(urlsplit(url).query)["host"]
    for place, well in ((folder, True), (f"{folder}/nowhere", False)):
        assert is_well("postgres", ("--host=127.0.0.1", f"--host={place}"), postgres_server.programs) == well
