"""A moment at which no thread of this process is in a transaction.

A process that is stopped in the middle of one keeps what it has locked: on SQLite that is the ledger, and nobody could
do anything for it. To be stopped at a quiet moment, and to be stopped in a transaction, are two faults.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from threading import Condition
from typing import Any

from farm.database import Database

_changed = Condition()
_open_transactions: list[None] = []


@contextmanager
def quiet_moment() -> Iterator[None]:
    """Waits for the transactions under way; none begins inside."""
    with _changed:
        _changed.wait_for(lambda: not _open_transactions)
        yield


def count_transactions() -> None:
    begin: Callable[..., Any] = Database.begin

    @wraps(begin)
    @contextmanager
    def counted(*args: Any, **kwargs: Any) -> Iterator[Any]:
        with _changed:
            _open_transactions.append(None)
        try:
            with begin(*args, **kwargs) as tx:
                yield tx
        finally:
            with _changed:
                _open_transactions.pop()
                _changed.notify_all()

    Database.begin = counted  # type: ignore[method-assign]
