"""What the doctor asks the farm's servers: ledger, clock, Redis, image store. Each returns a sentence or raises one."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import Final

from farm.broker import open_broker
from farm.database import Database
from farm.embedded_redis import is_running, redis_executable
from farm.image_store import ImageStore
from farm.leases import ledger_time
from farm.schema import current_revision, ensure_schema
from producer.upkeep.versions import redis_flaw, sqlite_flaw
from schemas.errors import BrokerUnavailableError, DatabaseUnavailableError, NightshiftError, StorageError
from schemas.settings import Settings

_MAX_CLOCK_SECONDS: Final = 5.0


def ledger(settings: Settings) -> str:
    with closing(Database(settings.database_url)) as database:
        with _advised("start its server, or correct NIGHTSHIFT_DATABASE_URL"):
            ensure_schema(database)
        flaw = sqlite_flaw(sqlite3.sqlite_version_info) if database.engine.dialect.name == "sqlite" else None
        said = f"; {flaw}" if flaw else ""
        return f"{database.safe_url} answers, tables at {current_revision(database)}{said}"


@contextmanager
def _advised(advice: str) -> Iterator[None]:
    """What to do about a server that does not answer, or refuses."""
    try:
        yield
    except (DatabaseUnavailableError, BrokerUnavailableError) as error:
        raise NightshiftError(f"{str(error).rstrip('.?')}; {advice}") from error


def clock(settings: Settings) -> str:
    """Leases and windows go by the ledger's clock, so a wrong one here does no harm; but log lines bear its dates."""
    with closing(Database(settings.database_url)) as database:
        ahead = (datetime.now(UTC) - ledger_time(database)).total_seconds()
    if abs(ahead) > _MAX_CLOCK_SECONDS:
        direction = "ahead of" if ahead > 0 else "behind"
        raise NightshiftError(
            f"this machine's clock is {abs(ahead):.0f} s {direction} the ledger's; one of them is wrong: use NTP"
        )
    return "agrees with the ledger's"


def redis(settings: Settings) -> str:
    if not settings.broker_url and not is_running(settings.home):
        return f"none runs now; `render` and `up` start {redis_executable()}"
    with closing(open_broker(settings)) as broker:
        with _advised("start it, or correct NIGHTSHIFT_BROKER_URL"):
            info = broker.info()
        policy = str(info.get("maxmemory_policy", "?"))
        if policy.startswith("allkeys"):
            raise NightshiftError(
                f"{broker.safe_url} throws queues away when its memory is full (maxmemory-policy {policy});"
                " set it to noeviction"
            )
        kept = "its queues" if info.get("aof_enabled") else "what its last snapshot has, if any, of its queues"
        return (
            f"{broker.safe_url} answers, version {info['redis_version']}, policy {policy}; a restart keeps {kept},"
            " and the rest is published again"
        )


def redis_version(settings: Settings) -> str:
    """One on a socket in a private folder is reached by its owner alone."""
    if not settings.broker_url.startswith(("redis://", "rediss://")):
        return "only this user can reach it"
    with closing(open_broker(settings)) as broker:
        try:
            flaw = redis_flaw(str(broker.info()["redis_version"]))
        except BrokerUnavailableError:
            return "not known while it does not answer"
    if flaw:
        raise NightshiftError(flaw)
    return "no known way to run code in it"


def image_store(settings: Settings) -> str:
    try:
        ImageStore(settings.images_url).check()
    except StorageError as error:
        raise NightshiftError(f"{error}; mend that, or correct NIGHTSHIFT_IMAGES_URL") from error
    return f"{settings.images_url} can be written"
