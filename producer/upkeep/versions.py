"""Which versions of Redis and SQLite have faults that a farm should know of."""

import re
from typing import Final

Version = tuple[int, int, int]

#: series → the first release in which neither Lua nor blocking commands can be made to run code
_MENDED_REDIS: Final = {(6, 2): 20, (7, 2): 11, (7, 4): 6, (8, 0): 4, (8, 2): 2, (8, 6): 3}
_MENDED_SQLITE: Final[Version] = (3, 51, 3)


def redis_flaw(version: str) -> str | None:
    """What is wrong with a Redis of this version that others can reach; None where nothing is known."""
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if found is None:
        return None
    major, minor, patch = (int(number) for number in found.groups())
    mended = _MENDED_REDIS.get((major, minor))
    if (major, minor) > max(_MENDED_REDIS) or (mended is not None and patch >= mended):
        return None
    known = ", ".join(f"{a}.{b}.{c}" for (a, b), c in _MENDED_REDIS.items())
    return f"whoever may send it commands can make version {version} run code; mended are {known} and later: update it"


def sqlite_flaw(version: Version) -> str | None:
    """As ``redis_flaw``, of the SQLite that Python brings."""
    if version >= _MENDED_SQLITE:
        return None
    numbers = ".".join(map(str, version))
    return f"SQLite {numbers} can, very rarely, damage a file while its log is reset; 3.51.3 mends it: keep backups"
