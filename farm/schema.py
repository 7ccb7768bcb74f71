"""The version of the ledger's tables: Alembic's migrations. A fresh SQLite file gets them by itself.

Each migration's file begins with its revision, so that Alembic is imported only where tables are made or changed. A
migration only adds, and processes of the version before go on; one that changes what rows mean has
``WANTS_A_STOPPED_FARM = True``.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, func, inspect, select
from sqlalchemy.exc import OperationalError

from farm.database import Database, Transaction
from schemas.errors import DatabaseUnavailableError, SchemaVersionError
from schemas.states import PackState
from schemas.tables import Pack

if TYPE_CHECKING:
    from alembic.config import Config

_LOCK_SECONDS: Final = 10.0
_LOCK_NOT_AVAILABLE: Final = "55P03"
_MIGRATIONS: Final = Path(__file__).parent / "migrations"


def upgrade(database: Database) -> str:
    """Brings the tables to this version of Nightshift. Returns the revision.

    Raises:
        SchemaVersionError: they are of a newer one; or workers of the old one hold packs that they could not finish.
        DatabaseUnavailableError: somebody reads or writes a table for longer than a farm that runs should be held up.
    """
    from alembic import command  # noqa: PLC0415

    found, config = current_revision(database), _config()
    _refuse_newer(database, found)
    with database.begin() as tx:
        _lock(tx.connection)
        if found is not None and _wants_a_stopped_farm(config, found):
            _require_no_pack_in_hand(tx, database)
        config.attributes["connection"] = tx.connection
        try:
            command.upgrade(config, "head")
        except OperationalError as error:
            raise _lock_sentence(database, error) or error from error
    return head_revision()


def ensure_schema(database: Database) -> None:
    """Makes the tables of a fresh SQLite file; anything else must be at this version already.

    Raises:
        SchemaVersionError: says to run ``nightshift db upgrade``, or a newer Nightshift.
    """
    found = current_revision(database)
    if found == head_revision():
        return
    if found is None and database.engine.dialect.name == "sqlite":
        upgrade(database)
        return
    _refuse_newer(database, found)
    state = "has no tables yet" if found is None else f"is at {found}, this Nightshift wants {head_revision()}"
    raise SchemaVersionError(f"the ledger {database.safe_url} {state}; run `nightshift db upgrade`")


def _refuse_newer(database: Database, found: str | None) -> None:
    if found is not None and found not in _known_revisions():
        raise SchemaVersionError(
            f"the ledger {database.safe_url} is of a newer version ({found}) than this Nightshift ({head_revision()});"
            " update Nightshift on this machine"
        )


def _wants_a_stopped_farm(config: "Config", found: str) -> bool:
    """Whether a migration that is still to come changes what rows mean, which it says of itself."""
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    coming = ScriptDirectory.from_config(config).iterate_revisions("head", found)
    return any(getattr(one.module, "WANTS_A_STOPPED_FARM", False) for one in coming)


def _require_no_pack_in_hand(tx: Transaction, database: Database) -> None:
    held = select(func.count()).where(Pack.state == PackState.RUNNING, Pack.lease_expires_at > tx.from_now())
    number = tx.execute(held).scalar_one()
    if number:
        raise SchemaVersionError(
            f"workers hold packs of the ledger {database.safe_url} ({number}), and those of the version before could"
            " not finish them in the tables of this one: stop workers and dispatchers, then run it again"
        )


def _lock_sentence(database: Database, error: OperationalError) -> DatabaseUnavailableError | None:
    """None where it is no table that somebody else holds."""
    if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
        return None
    return DatabaseUnavailableError(
        f"a table of the ledger {database.safe_url} has been in use for {_LOCK_SECONDS:g} s, by pg_dump perhaps, and"
        " all others would wait behind us: nothing was changed; run it again after that"
    )


def current_revision(database: Database) -> str | None:
    """The revision of the tables; None where there are none."""
    with database.begin(read_only=True) as tx:
        if not inspect(tx.connection).has_table("alembic_version"):
            return None
        found: str | None = tx.connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return found


def head_revision() -> str:
    """The revision that this version of Nightshift wants."""
    return max(_known_revisions())


def _known_revisions() -> set[str]:
    return {path.name.partition("_")[0] for path in (_MIGRATIONS / "versions").glob("[0-9]*_*.py")}


def _config() -> "Config":
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config


def _lock(connection: Connection) -> None:
    """Two upgrades at once wait for each other. SQLite's BEGIN IMMEDIATE does so by itself.

    Whoever wants a table for itself waits for those who use it, and all others wait behind it, the whole farm.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7155403)")
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {round(_LOCK_SECONDS * 1000)}")
