"""The version of the ledger's tables: Alembic's migrations. A fresh SQLite file gets them by itself."""

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from farm.database import Database
from schemas.errors import SchemaVersionError

_MIGRATIONS: Final = Path(__file__).parent / "migrations"


def upgrade(database: Database) -> str:
    """Brings the tables to this version of Nightshift. Returns the revision."""
    config = _config()
    with database.begin() as tx:
        _lock(tx.connection)
        config.attributes["connection"] = tx.connection
        command.upgrade(config, "head")
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
    if found is not None and found not in _known_revisions():
        raise SchemaVersionError(
            f"the ledger {database.safe_url} is of a newer version ({found}) than this Nightshift ({head_revision()});"
            " update Nightshift on this machine"
        )
    state = "has no tables yet" if found is None else f"is at {found}, this Nightshift wants {head_revision()}"
    raise SchemaVersionError(f"the ledger {database.safe_url} {state}; run `nightshift db upgrade`")


def current_revision(database: Database) -> str | None:
    """The revision of the tables; None where there are none."""
    with database.begin(read_only=True) as tx:
        return MigrationContext.configure(tx.connection).get_current_revision()


def head_revision() -> str:
    """The revision that this version of Nightshift wants."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head


def _known_revisions() -> set[str]:
    return {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config


def _lock(connection: Connection) -> None:
    """Two upgrades at once wait for each other. SQLite's BEGIN IMMEDIATE does so by itself."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7155403)")
