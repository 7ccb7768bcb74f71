"""What every command begins with: settings, the ledger, and how answers are printed."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from farm.database import Database
from farm.schema import ensure_schema
from schemas.printable import json_printable
from schemas.settings import Settings, load_settings

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
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


def print_json(content: Any) -> None:
    """One JSON document on stdout. What would move a terminal's cursor or turn its text stands as JSON's ``\\u``."""
    print("\n".join(map(json_printable, json.dumps(content, indent=2, ensure_ascii=False, default=str).split("\n"))))


def so_many(num: int, noun: str) -> str:
    """``1 job``, ``2,400 jobs``"""
    return f"{num:,} {noun}{'' if num == 1 else 's'}"
