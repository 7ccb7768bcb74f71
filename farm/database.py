"""The ledger's connection: engine, transactions, clock. SQLite (WAL, one host) or PostgreSQL.

Every function that touches the ledger is a ``@transaction``: called with a ``Database``, it gets a ``Transaction``,
commits when it returns, rolls back when it raises, and is run again when the database asks for that (40001, 40P01).
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cached_property, wraps
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    CursorResult,
    Engine,
    Interval,
    create_engine,
    event,
    func,
    literal,
    make_url,
    select,
    type_coerce,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    NoSuchModuleError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import NullPool

from farm.sqlite_memory import fit_memory
from schemas.column_types import Utc
from schemas.errors import DatabaseUnavailableError, SettingsError, StorageError, UnavailableError
from schemas.safe_url import safe_url
from schemas.tables import Table

P = ParamSpec("P")
T = TypeVar("T")
Clock = Callable[[], datetime]

_INSERT: Final[dict[str, Any]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
_BUSY_SECONDS: Final = 60
#: how long a thread waits until another one of its process gives a connection back
_WAIT_SECONDS: Final = 30.0
#: Fifty workers fit into PostgreSQL's default of 100 connections: each keeps one. Its other threads seldom ask at the
#: same moment; they get one of their own for that moment.
NUM_CONNECTIONS: Final = 4
_POSTGRESQL: Final = {
    "application_name": "nightshift",
    "connect_timeout": 10,
    # A server that vanished without a word is noticed within a minute, not within the kernel's quarter of an hour.
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 50_000,
}
#: A client that vanished or was stopped in mid-transaction keeps its rows locked, and nobody could take its pack back.
#: And a few of the oldest rows are read in their index's order. Where a table has no figures yet, or the number of rows
#: that are wanted is a parameter, the server would rather read all that wait, a million, and sort them.
_SESSION: Final = (
    "SET idle_in_transaction_session_timeout = '10s'; SET random_page_cost = 1.1; SET enable_bitmapscan = off"
)
_RETRIED_STATES: Final = frozenset({"40001", "40P01"})  # serialization failure, deadlock
_RETRIES: Final = 5
#: of the statement's beginning: one time for all of its rows
_POSTGRESQL_NOW: Final = func.statement_timestamp(type_=Utc)
_DISK_SENTENCES: Final = ("readonly database", "database or disk is full", "disk I/O error", "could not extend file")


class Transaction:
    """An open transaction and the ledger's time in it."""

    def __init__(self, connection: Connection, clock: Clock | None) -> None:
        self.connection = connection
        self._clock = clock

    def execute(self, statement: Any, parameters: Any = None) -> CursorResult[Any]:
        return self.connection.execute(statement, parameters)

    @property
    def dialect(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return self.connection.dialect.name

    def insert(self, table: type[Table]) -> Any:
        """The dialect's own INSERT, which has ``on_conflict_do_nothing`` and ``on_conflict_do_update``."""
        return _INSERT[self.dialect](table)

    @cached_property
    def now(self) -> datetime:
        """The ledger's clock, the same for the whole transaction: hosts' clocks differ, the database's is one."""
        if self._has_its_own_clock:
            return self.connection.execute(select(func.clock_timestamp())).scalar_one().astimezone(UTC)  # type: ignore[no-any-return]
        return self._clock() if self._clock is not None else datetime.now(UTC)

    def from_now(self, seconds: float = 0.0) -> ColumnElement[datetime]:
        """The ledger's time so many seconds from now, for use in a statement: PostgreSQL need not be asked first."""
        if not self._has_its_own_clock:
            return literal(self.now + timedelta(seconds=seconds), Utc)
        if not seconds:
            return _POSTGRESQL_NOW
        return type_coerce(_POSTGRESQL_NOW + literal(timedelta(seconds=seconds), Interval), Utc)

    @property
    def given_now(self) -> datetime | None:
        """``now``, and None where PostgreSQL knows it by itself, for SQL that is written out."""
        return None if self._has_its_own_clock else self.now

    @property
    def _has_its_own_clock(self) -> bool:
        return self._clock is None and self.dialect != "sqlite"


class _AgainError(Exception):
    """The transaction may be run again, and may well succeed; ``sentence`` is for when that helped no more."""

    def __init__(self, sentence: UnavailableError) -> None:
        super().__init__(str(sentence))
        self.sentence = sentence


class Database:
    """The ledger behind a SQLAlchemy URL. ``clock`` replaces the database's clock in tests.

    ``keeps_connection``: False for a process that seldom asks: PostgreSQL has a hundred connections for the whole farm.
    ``num_connections``: to PostgreSQL, at the most, where some are kept: the other threads wait for one.
    """

    def __init__(self, url: str, clock: Clock | None = None, *, keeps_connection: bool = True,
                 num_connections: int = NUM_CONNECTIONS) -> None:  # fmt: skip
        self.engine = _engine(url, _pool(num_connections) if keeps_connection else {"poolclass": NullPool})
        self._clock = clock

    @property
    def safe_url(self) -> str:
        """The URL without its password."""
        return safe_url(self.engine.url.render_as_string(hide_password=True))

    @contextmanager
    def begin(self, *, read_only: bool = False, repeatable: bool = False, bulk: bool = False) -> Iterator[Transaction]:
        """A transaction. A writing one on SQLite takes the write lock at once, so it waits instead of failing later.

        On PostgreSQL, each statement of a reading one sees what is committed by then, as it would inside BEGIN and
        COMMIT, so those two, which cost as much as many a statement, are spared; and with ``repeatable``, which is for
        what makes one statement that may safely be made twice. ``bulk``: it writes thousands of rows.

        Raises:
            DatabaseUnavailableError: the server does not answer, the connection broke, or none was free.
            StorageError: the disk is full or read-only.
        """
        begun, options = False, {"read_only": read_only, "bare": read_only or repeatable, "bulk": bulk}
        try:
            with self.engine.connect().execution_options(**options) as connection, connection.begin():
                begun = not options["bare"]
                yield Transaction(connection, self._clock)
        except PoolTimeoutError as error:
            sentence = f"is asked by too many threads: no connection was free for {_WAIT_SECONDS:g} s"
            raise DatabaseUnavailableError(f"the ledger {self.safe_url} {sentence}") from error
        except (IntegrityError, ProgrammingError, DataError):
            raise  # a mistake of ours, and not the database's state
        except DBAPIError as error:
            # A connection that has died since it was used last is noticed at its first statement; none is asked before.
            if _state(error) in _RETRIED_STATES or (error.connection_invalidated and not begun):
                raise _AgainError(self._sentence(error)) from error
            raise self._sentence(error) from error

    def _sentence(self, error: DBAPIError) -> DatabaseUnavailableError | StorageError:
        ledger, reason = f"the ledger {self.safe_url}", " ".join(str(error.orig).split())
        if "database is locked" in reason:
            return DatabaseUnavailableError(f"{ledger} has been held by another process for {_BUSY_SECONDS} s")
        if any(sentence in reason for sentence in _DISK_SENTENCES):
            return StorageError(f"{ledger} cannot be written: {reason}")
        return DatabaseUnavailableError(f"{ledger} does not answer: {reason}")

    def close(self) -> None:
        self.engine.dispose()


def transaction(function: Callable[Concatenate[Transaction, P], T]) -> Callable[Concatenate[Database, P], T]:
    """Runs the function in one writing transaction, again after a deadlock or serialization failure."""
    return _runner(function)


def bulk_transaction(function: Callable[Concatenate[Transaction, P], T]) -> Callable[Concatenate[Database, P], T]:
    """The same for one that writes thousands of rows."""
    return _runner(function, bulk=True)


def statement(function: Callable[Concatenate[Transaction, P], T]) -> Callable[Concatenate[Database, P], T]:
    """Runs a function that makes one statement, again where its answer was lost: twice must be as good as once."""
    return _runner(function, repeatable=True)


def question(function: Callable[Concatenate[Transaction, P], T]) -> Callable[Concatenate[Database, P], T]:
    """Runs the function in one reading transaction. A PostgreSQL whose transactions are serializable may refuse readers
    too, and they ask again."""
    return _runner(function, read_only=True)


def _runner(function: Callable[Concatenate[Transaction, P], T], **kind: bool
            ) -> Callable[Concatenate[Database, P], T]:  # fmt: skip
    @wraps(function)
    def run(database: Database, /, *args: P.args, **kwargs: P.kwargs) -> T:
        for attempt in range(_RETRIES):
            try:
                with database.begin(**kind) as tx:
                    return function(tx, *args, **kwargs)
            except _AgainError as again:
                if attempt == _RETRIES - 1:
                    raise again.sentence from again
                time.sleep(0.01 * 2**attempt)
        raise AssertionError("unreachable")

    return run


def _state(error: DBAPIError) -> str | None:
    return getattr(error.orig, "sqlstate", None)


def _pool(num_connections: int) -> dict[str, Any]:
    """A quarter of them is kept; the others are closed when their moment is over."""
    num_kept = num_connections // 4
    return {"pool_size": num_kept, "max_overflow": num_connections - num_kept, "pool_timeout": _WAIT_SECONDS}


def _engine(url: str, pool: Mapping[str, Any]) -> Engine:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # the port
        raise SettingsError("database_url is no SQLAlchemy URL; sqlite:////path/ledger.sqlite3 would be one") from None
    if parsed.get_backend_name() == "sqlite":
        return _sqlite_engine(parsed.database)
    if parsed.get_backend_name() != "postgresql":
        raise SettingsError(f"the ledger is SQLite or PostgreSQL, not {parsed.get_backend_name()!r}")
    try:
        return _postgresql_engine(parsed, pool)
    except (ImportError, NoSuchModuleError):
        raise SettingsError("PostgreSQL needs the driver: pip install 'nightshift[postgres]'") from None


def _postgresql_engine(url: URL, pool: Mapping[str, Any]) -> Engine:
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        **pool,
        connect_args=_POSTGRESQL,
        hide_parameters=True,  # errors would quote them: prompts, names, and whatever else a row says
    )

    @event.listens_for(engine, "connect")
    def limits(connection: Any, _record: Any) -> None:
        connection.autocommit = True  # we say BEGIN ourselves, where it is wanted
        connection.execute(_SESSION)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        if not connection.get_execution_options().get("bare", False):
            connection.exec_driver_sql("BEGIN")

    return engine


def _sqlite_engine(path: str | None) -> Engine:
    if not path or path == ":memory:":
        raise SettingsError("a ledger in memory is lost at exit; name a file: sqlite:////path/ledger.sqlite3")
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make the folder of the ledger {path}: {error.strerror}") from None
    engine = create_engine(
        f"sqlite:///{path}",
        pool_timeout=_WAIT_SECONDS,
        connect_args={"timeout": _BUSY_SECONDS, "isolation_level": None},
        hide_parameters=True,
    )

    @event.listens_for(engine, "connect")
    def pragmas(connection: Any, _record: Any) -> None:
        # FULL: what submit promised must survive a power cut; WAL alone would not sync at each commit.
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "mmap_size=0"):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        fit_memory(connection)
        read_only = connection.get_execution_options().get("read_only", False)
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine
