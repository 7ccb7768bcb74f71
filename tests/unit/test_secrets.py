"""Passwords and tokens are planted, and whatever is said, logged or recorded is searched for them."""

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import DBAPIError

from farm.broker import Broker
from farm.database import Database
from farm.image_store import ImageStore
from farm.inputs import InputStore
from farm.redis_client import redis_client
from farm.schema import upgrade
from producer.upkeep.doctor import examine
from schemas.errors import DatabaseUnavailableError, NightshiftError, SettingsError
from schemas.safe_url import is_readable, safe_url, url_secrets
from schemas.settings import Settings, load_settings
from schemas.tables import Worker

PLANTED = "hunter2-planted"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"redis://:{PLANTED}@host:6379/0", "redis://:***@host:6379/0"),
        (f"rediss://user:{PLANTED}@host/1?ssl_ca_certs=/ca.pem", "rediss://user:***@host/1?ssl_ca_certs=/ca.pem"),
        (f"redis://host/0?password={PLANTED}&db=1", "redis://host/0?password=***&db=1"),
        (f"redis://host/0?{PLANTED}", "redis://host/0?***"),
        (f"redis://{PLANTED}@host/0", "redis://***@host/0"),
        (f"redis://:{PLANTED}/x@host/0", "redis://***"),
        (f"redis://:{PLANTED}#x@host/0", "redis://***"),
        (f"redis://:{PLANTED}?x@host/0", "redis://***"),
        (f"redis://:[{PLANTED}@host/0", "redis://***"),
        (f"postgresql+psycopg://me:{PLANTED}@host:5432/db?sslmode=require",
         "postgresql+psycopg://me:***@host:5432/db?sslmode=require"),
        (f"postgresql://host/db?user=me&password={PLANTED}", "postgresql://host/db?user=me&password=***"),
        (f"postgresql://me:{PLANTED}@/db?host=/run/pg", "postgresql://me:***@/db?host=/run/pg"),
        (f"https://me:{PLANTED}@host/images", "https://me:***@host/images"),
        (f"https://host/images?sig={PLANTED}", "https://host/images?sig=***"),
        (f"https://host/images#{PLANTED}", "https://host/images"),
    ],
)  # fmt: skip
def test_a_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert safe_url(url) == shown
    assert any(PLANTED in secret for secret in url_secrets(url))


@pytest.mark.parametrize(
    "url",
    ["redis://host:6379/0", "redis+socket:///tmp/a%40b?virtual_host=0", "file:///mnt/a@b/images", "/mnt/images", "memory://x",
     "sqlite:////home/me/ledger@home.sqlite3", "s3://bucket/me@home/x", "rediss://host/0?ssl_cert_reqs=required"],
)  # fmt: skip
def test_a_url_without_secrets_is_shown_as_it_is(url: str) -> None:
    assert safe_url(url) == url
    assert url_secrets(url) == set()
    assert is_readable(url)


def test_a_secret_is_known_as_it_is_written_and_as_it_is_meant() -> None:
    assert url_secrets("redis://:p%40ss%2Fword@host/0") == {"p%40ss%2Fword", "p@ss/word"}


# Settings


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in [name for name in os.environ if name.startswith("NIGHTSHIFT_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return monkeypatch


@pytest.mark.parametrize("name", ["database_url", "broker_url", "images_url"])
@pytest.mark.parametrize("value", [f'["redis://:{PLANTED}@host"]', f'{{ url = "{PLANTED}" }}', f'"redis://:{PLANTED}'])
def test_a_setting_that_is_malformed_is_not_quoted(bare: pytest.MonkeyPatch, name: str, value: str) -> None:
    Path("nightshift.toml").write_text(f"{name} = {value}\n")
    with pytest.raises(SettingsError) as error:
        load_settings()
    assert PLANTED not in str(error.value)
    assert name in str(error.value) or "nightshift.toml" in str(error.value)


def test_the_settings_do_not_show_their_urls(bare: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE", "BROKER", "IMAGES"):
        bare.setenv(f"NIGHTSHIFT_{name}_URL", f"redis://:{PLANTED}@host/0")
    settings = load_settings()
    assert PLANTED in settings.broker_url
    assert PLANTED not in repr(settings) + str(settings)


@pytest.mark.parametrize(
    "url",
    [f"redis://:{PLANTED}/@host:6379", f"redis://:{PLANTED}@host:port/0", f"amqp://me:{PLANTED}@host", PLANTED,
     f"redis://:{PLANTED}[@host", f"redis://host/0?socket_timeout={PLANTED}", f"{PLANTED}://host",
     f"rediss://host/0?ssl_cert_reqs={PLANTED}", f"redis://host/0?ssl_cert_reqs=required&x={PLANTED}",
     f"redis+socket:///tmp/redis.sock?password={PLANTED}"],
)  # fmt: skip
def test_a_wrong_broker_url_is_refused_without_its_secret(url: str) -> None:
    for make in (Broker, redis_client):
        with pytest.raises(SettingsError) as error:
            make(url)
        if not url.startswith(PLANTED):
            assert PLANTED not in str(error.value)
        assert error.value.__cause__ is None


@pytest.mark.parametrize(
    "url",
    [f"postgresql://me:{PLANTED}@host:port/db", f"mysql://me:{PLANTED}@host/db", f"postgresql+{PLANTED}", f"{PLANTED}",
     f"postgresql+nothing://me:{PLANTED}@host:1/db"],
)  # fmt: skip
def test_a_wrong_database_url_is_refused_without_its_secret(url: str) -> None:
    try:
        Database(url).close()
    except NightshiftError as error:
        assert PLANTED not in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    "url",
    [f"https://me:{PLANTED}@host/images", f"https://{PLANTED}@host/images", f"https://host/images?sig={PLANTED}",
     f"s3://key:{PLANTED}@bucket/images"],
)  # fmt: skip
def test_an_image_store_with_a_token_in_its_url_is_refused_for_uris_are_recorded(tmp_path: Path, url: str) -> None:
    for make in (ImageStore, InputStore):
        with pytest.raises(SettingsError, match=r"\*\*\*.*AWS_SECRET_ACCESS_KEY") as error:
            make(url)
        assert PLANTED not in str(error.value)
    findings = examine(Settings(home=tmp_path, images_url=url))
    assert PLANTED not in str(findings)
    assert not all(finding.ok for finding in findings)


def test_an_error_of_the_database_does_not_quote_what_a_row_says(sqlite_url: str) -> None:
    with closing(Database(sqlite_url)) as database:
        upgrade(database)
        with pytest.raises(DBAPIError) as error, database.begin() as tx:
            tx.execute(insert(Worker).values(id="a", host=PLANTED, error=PLANTED, state="loading"))
        assert PLANTED not in str(error.value)


def test_an_unreachable_database_is_named_without_its_password() -> None:
    url = f"postgresql://me:{PLANTED}@127.0.0.1:1/db?password={PLANTED}&connect_timeout=2"
    with closing(Database(url)) as database:
        assert PLANTED not in database.safe_url
        with pytest.raises(DatabaseUnavailableError) as error, database.begin():
            pass
        assert PLANTED not in str(error.value)


# Log lines and tracebacks of whoever quotes a URL

_LEAKING = """
import logging, sys
from threading import Thread
from farm.logs import log_to_stderr
from farm.retries import Failure
from schemas.settings import load_settings
settings = load_settings()
log_to_stderr(settings.model_copy(update={"log_level": "debug"}), "test")
error = ConnectionError("cannot reach", settings.broker_url, settings.database_url)
logging.getLogger("redis").warning("trying %s", settings.broker_url)
logging.getLogger("httpx").warning("Authorization: Bearer hf_planted_token")
try:
    raise error
except ConnectionError:
    logging.getLogger("kombu").exception("lost")
print(Failure.of(error))
def die():
    raise error
thread = Thread(target=die)
thread.start()
thread.join()
raise RuntimeError(settings.database_url) from error
"""


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_log_lines_and_tracebacks_lose_what_libraries_quote(
    log_format: str, bare: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bare.setenv("NIGHTSHIFT_LOG_FORMAT", log_format)
    Path("nightshift.toml").write_text(f'broker_url = "redis://:{PLANTED}%40@host/0?token=other-planted"\n')
    bare.setenv("NIGHTSHIFT_DATABASE_URL", f"postgresql://me:{PLANTED}-too@host/db")
    bare.setenv("HF_TOKEN", "hf_planted_token")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", _LEAKING], capture_output=True, text=True, env=environment)
    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert said.count("Traceback") >= 4
    assert said.count("redis://:***@host/0?token=***") >= 4
    assert "Bearer ***" in said
    assert "planted" not in said


_AFTER_A_COMMAND = """
import os, sys, nightshift
sys.argv = ["nightshift", "sizes", "--json"]
try:
    nightshift.main()
except SystemExit:
    raise RuntimeError(os.environ["NIGHTSHIFT_BROKER_URL"])
"""


def test_a_traceback_of_the_command_loses_them_too(bare: pytest.MonkeyPatch) -> None:
    bare.setenv("NIGHTSHIFT_BROKER_URL", f"redis://:{PLANTED}@host/0")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", _AFTER_A_COMMAND], capture_output=True, text=True, env=environment)
    assert "RuntimeError: redis://:***@host/0" in done.stderr
    assert PLANTED not in done.stderr
