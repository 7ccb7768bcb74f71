"""Triggers in a run's ledger that write down every move of every job and pack, whoever made it, and when."""

from sqlalchemy import Engine

_TABLE = """
CREATE TABLE chaos_moves (
    id {serial}, kind VARCHAR(4) NOT NULL, row_id VARCHAR(32) NOT NULL,
    old VARCHAR(10) NOT NULL, new VARCHAR(10) NOT NULL, pack_id VARCHAR(32), at DOUBLE PRECISION NOT NULL)
"""
_INSERT = "INSERT INTO chaos_moves (kind, row_id, old, new, pack_id, at) VALUES"
_SQLITE_NOW = "(julianday('now') - 2440587.5) * 86400.0"
#: a job that goes back to pending forgets its pack
_PACK = {"job": "COALESCE(NEW.pack_id, OLD.pack_id)", "pack": "NEW.id"}


def install(engine: Engine) -> None:
    sqlite = engine.dialect.name == "sqlite"
    serial = "INTEGER PRIMARY KEY" if sqlite else "BIGSERIAL PRIMARY KEY"
    statements = [_TABLE.format(serial=serial)]
    for kind in ("job", "pack"):
        statements += _sqlite_trigger(kind) if sqlite else _postgresql_trigger(kind)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def _sqlite_trigger(kind: str) -> list[str]:
    return [
        f"CREATE TRIGGER chaos_{kind} AFTER UPDATE OF state ON {kind}s WHEN OLD.state <> NEW.state BEGIN"
        f" {_INSERT} ('{kind}', NEW.id, OLD.state, NEW.state, {_PACK[kind]}, {_SQLITE_NOW}); END"
    ]


def _postgresql_trigger(kind: str) -> list[str]:
    return [
        f"CREATE FUNCTION chaos_{kind}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" {_INSERT} ('{kind}', NEW.id, OLD.state, NEW.state, {_PACK[kind]},"
        " extract(epoch FROM clock_timestamp())); RETURN NEW; END $$",
        f"CREATE TRIGGER chaos_{kind} AFTER UPDATE OF state ON {kind}s FOR EACH ROW"
        f" WHEN (OLD.state <> NEW.state) EXECUTE FUNCTION chaos_{kind}()",
    ]
