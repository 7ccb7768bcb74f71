"""How often the same row came before. Counted in a private temporary SQLite file, so that memory does not grow.

SQLite makes the file for the empty name, in its temporary folder, and unlinks it at once: nothing remains of it, even
after a SIGKILL. Rows that fit in the cache never reach the disk.
"""

import hashlib
import sqlite3
from typing import Final, Self

from schemas.errors import StorageError

_CACHE_KIB: Final = 4_096
_ONE_MORE: Final = (
    "INSERT INTO rows_seen VALUES (?, 0) ON CONFLICT (content) DO UPDATE SET num_before = num_before + 1"
    " RETURNING num_before"
)


class Repeats:
    """A count for each content. A context manager; the counts end with it."""

    def __init__(self) -> None:
        # A generator that holds the counts may be closed by whichever thread drops it last.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)

    def __enter__(self) -> Self:
        for statement in (
            "PRAGMA journal_mode = OFF",
            "PRAGMA synchronous = OFF",
            f"PRAGMA cache_size = -{_CACHE_KIB}",
            "CREATE TABLE rows_seen (content BLOB PRIMARY KEY, num_before INTEGER NOT NULL) WITHOUT ROWID",
            "BEGIN",
        ):
            self._database.execute(statement)
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def num_before(self, content: str) -> int:
        """How often this was asked with the same content before.

        Raises:
            StorageError: the temporary folder is full or cannot be written.
        """
        # 16 bytes: among 10 million contents two alike are less likely than 1 in 10**24.
        key = hashlib.sha256(content.encode()).digest()[:16]
        try:
            num: int = self._database.execute(_ONE_MORE, (key,)).fetchall()[0][0]
        except sqlite3.Error as error:
            raise StorageError(f"cannot count the manifest's rows in the temporary folder: {error}") from error
        return num
