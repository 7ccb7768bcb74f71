"""What SQLite may keep in memory: more while thousands of rows are written, its own defaults else."""

from typing import Final

from sqlalchemy import Connection

_OPTION: Final = "bulk"
#: 64 MB of the file: digests come in no order, and each has its place in an index. And what a statement of several rows
#: would undo, which would be a file of its own for each. A sort of a million rows stays a file.
_BULK: Final = ("PRAGMA cache_size = -65536", "PRAGMA temp_store = MEMORY")
_PLAIN: Final = ("PRAGMA cache_size = -2000", "PRAGMA temp_store = DEFAULT")


def fit_memory(connection: Connection) -> None:
    """Before each BEGIN: what is set afterwards does not hold for the transaction. Asks for its execution option."""
    bulk = connection.get_execution_options().get(_OPTION, False)
    if connection.info.get(_OPTION, False) != bulk:
        connection.info[_OPTION] = bulk
        for pragma in _BULK if bulk else _PLAIN:
            connection.exec_driver_sql(pragma).close()
