"""A whole farm with planted passwords and tokens: nothing that it says, logs or records has one of them."""

from pathlib import Path

import pytest
from sqlalchemy import MetaData, create_engine, select

from farm.redis_client import redis_client
from tests.acceptance.conftest import SMALL, Commands
from tests.servers import RedisServer

TOKENS = {"HF_TOKEN": "hf_planted_token", "AWS_SECRET_ACCESS_KEY": "planted/aws+secret", "PGPASSWORD": "planted-pg"}


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("a cat\n")
    return path


def everything_in(database_url: str) -> str:
    """Every row of every table."""
    engine = create_engine(database_url)
    tables = MetaData()
    tables.reflect(engine)
    with engine.connect() as connection:
        rows = [tuple(row) for table in tables.sorted_tables for row in connection.execute(select(table))]
    engine.dispose()
    return repr(rows)


def files_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file() and "cache" not in path.parts)


def test_a_farm_keeps_its_secrets_and_renders_on_whatever_strangers_write(
    commands: Commands, forked: dict[str, str], postgres_url: str, redis_server: RedisServer, prompts: Path
) -> None:
    password = redis_server.url.split(":")[2].split("@")[0]
    database_url = postgres_url.replace("postgres@", "postgres:planted-database@") + "&passfile=/planted-passfile"
    secrets = [*TOKENS.values(), password, "planted-database", "planted-passfile"]
    commands.environment |= {
        **forked,
        **TOKENS,
        "NIGHTSHIFT_DATABASE_URL": database_url,
        "NIGHTSHIFT_BROKER_URL": redis_server.url,
        "NIGHTSHIFT_BROKER_PREFIX": "secrets:",
        "NIGHTSHIFT_LOG_LEVEL": "debug",
    }
    assert commands.run("db", "upgrade").returncode == 0
    with redis_client(redis_server.url) as client:
        client.lpush("secrets:nightshift.tiny", b"a stranger was here")
    rendered = commands.run("render", prompts, "--pair", "tiny", *SMALL, "--set", "width=64")
    assert rendered.returncode == 0, rendered.stderr
    runs = [rendered, *(commands.run(*words) for words in (
        ["status"], ["status", "1", "--json"], ["doctor"], ["db", "upgrade", "--json"],
        ["show", *(commands.home / "images").rglob("*.png")],
    ))]  # fmt: skip
    said = "".join(run.stdout + run.stderr for run in runs)
    recorded = everything_in(postgres_url)
    kept = files_in(commands.home)
    assert ", messages refused: 1 " in said
    assert "a cat" in recorded
    assert b"a cat" in kept
    assert b"DEBUG" in kept or b"INFO" in kept
    for secret in secrets:
        assert secret not in said
        assert secret not in recorded
        assert secret.encode() not in kept


@pytest.mark.parametrize("words", [["doctor", "--json"], ["worker"], ["submit"]])
def test_what_does_not_answer_is_said_without_secrets(commands: Commands, prompts: Path, words: list[str]) -> None:
    dead = {
        "NIGHTSHIFT_BROKER_URL": "rediss://:planted-broker@127.0.0.1:1/0",
        "NIGHTSHIFT_LOG_LEVEL": "debug",
        **TOKENS,
    }
    done = commands.run(*words, *([prompts] if words == ["submit"] else []), **dead)
    assert "planted" not in done.stdout + done.stderr
    assert done.returncode == 3


@pytest.mark.parametrize("words", [["doctor"], ["worker"]])
def test_a_dead_database_is_said_without_secrets(commands: Commands, words: list[str]) -> None:
    url = "postgresql://me:planted-database@127.0.0.1:1/db?options=-cx&sslpassword=planted-key"
    done = commands.run(*words, NIGHTSHIFT_DATABASE_URL=url, **TOKENS)
    assert done.returncode == 3
    assert "does not answer" in done.stdout + done.stderr
    assert "planted" not in done.stdout + done.stderr
