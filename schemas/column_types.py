"""Types of the ledger's columns that SQLite and PostgreSQL have in common."""

from collections.abc import Collection
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    DateTime,
    Dialect,
    Integer,
    String,
    TextClause,
    TypeDecorator,
    bindparam,
    literal_column,
    text,
)

# SQLite gives rowids, and so autoincrement, to INTEGER alone.
BigId = BigInteger().with_variant(Integer, "sqlite")


class Utc(TypeDecorator[datetime]):
    """A timezone-aware UTC time. SQLite stores no zones, so there it is stored without and read back with UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"times in the ledger carry their zone; {value} has none")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def timed(statement: str, *names: str) -> TextClause:
    """SQL that is written out, whose parameters of these names are times."""
    return text(statement).bindparams(*(bindparam(name, type_=Utc) for name in names))


class State(String):
    """A state's word. In a comparison it stands in the SQL as it is: a prepared statement whose states were parameters
    could not use the indexes that hold the rows of some states alone, and would be planned anew each time."""

    class Comparator(String.Comparator[str]):
        def operate(self, op: Any, *other: Any, **kwargs: Any) -> Any:
            return super().operate(op, *map(_as_it_is, other), **kwargs)

    comparator_factory = Comparator


def _as_it_is(value: Any) -> Any:
    if isinstance(value, StrEnum):
        return literal_column(f"'{value}'", String)
    if isinstance(value, Collection) and not isinstance(value, str):
        return [_as_it_is(one) for one in value]
    return value
