"""How often the same row came before, counted in bounded memory.

The counts of the last rows are kept in memory, and go in large sorted lots to a private temporary SQLite file, in which
a table of bits says what there is to look for: most rows come once. SQLite makes the file for the empty name, in its
temporary folder, and unlinks it at once, so that nothing remains of it, even after a SIGKILL.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Self

from schemas.errors import StorageError

_CACHE_KIB: Final = 4_096
#: counts that are kept in memory until they are written
_LOT: Final = 20_000
#: 32 MB: once a million digests are written, one new one in 270 is looked for in vain
_NUM_BITS: Final = 2**28
_MASK: Final = _NUM_BITS - 1
_TABLE: Final = (
    "PRAGMA journal_mode = OFF",
    "PRAGMA synchronous = OFF",
    f"PRAGMA cache_size = -{_CACHE_KIB}",
    "CREATE TABLE rows_seen (digest INTEGER PRIMARY KEY, num_seen INTEGER NOT NULL)",
    "BEGIN",
)


class Repeats:
    """A count for each digest. A context manager; the counts end with it."""

    def __init__(self) -> None:
        # A generator that holds the counts may be closed by whichever thread drops it last.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._recent: dict[str, int] = {}
        self._bits = bytearray()  # none before the first lot

    def __enter__(self) -> Self:
        for statement in _TABLE:
            self._database.execute(statement)
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def num_before(self, digest: str) -> int:
        """How often this was asked with the same digest (sha256, hexadecimal) before.

        Raises:
            StorageError: the temporary folder is full or cannot be written.
        """
        num_seen = self._recent.get(digest)
        if num_seen is None:
            place = hash(digest) & _MASK  # the digest's own, in this process, which a text computes once
            num_seen = self._num_written(digest) if self._bits and self._bits[place >> 3] >> (place & 7) & 1 else 0
        self._recent[digest] = num_seen + 1
        if len(self._recent) >= _LOT:
            self._write()
        return num_seen

    def _num_written(self, digest: str) -> int:
        with _storage_errors():
            found = self._database.execute(
                "SELECT num_seen FROM rows_seen WHERE digest = ?", (_key(digest),)
            ).fetchone()
        return 0 if found is None else int(found[0])

    def _write(self) -> None:
        bits = self._bits = self._bits or bytearray(_NUM_BITS // 8)
        for digest in self._recent:
            place = hash(digest) & _MASK
            bits[place >> 3] |= 1 << (place & 7)
        lot = [(_key(digest), num_seen) for digest, num_seen in sorted(self._recent.items())]
        with _storage_errors():
            self._database.executemany("INSERT OR REPLACE INTO rows_seen VALUES (?, ?)", lot)
        self._recent.clear()


def _key(digest: str) -> int:
    """64 bits, as SQLite's own keys have: among 10 million contents two alike are less likely than 1 in 300,000, and
    would only be counted as one: each is a job all the same."""
    return int(digest[:16], 16) - 2**63


@contextmanager
def _storage_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StorageError(f"cannot count the manifest's rows in the temporary folder: {error}") from error
