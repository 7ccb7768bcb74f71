"""What every command begins with: its settings and the ledger."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import typer

from farm.database import Database
from farm.schema import ensure_schema
from schemas.settings import Settings, load_settings

PairOption = Annotated[str | None, typer.Option("--pair", help="Which pair renders; `nightshift pairs` lists them.")]


@dataclass(frozen=True)
class Session:
    """The settings of this command, and the ledger."""

    settings: Settings
    database: Database


@contextmanager
def open_session() -> Iterator[Session]:
    """Settings and a ledger whose tables are there.

    Raises:
        NightshiftError: settings malformed, ledger unreachable or of another version.
    """
    settings = load_settings()
    database = Database(settings.database_url)
    try:
        ensure_schema(database)
        yield Session(settings, database)
    finally:
        database.close()
