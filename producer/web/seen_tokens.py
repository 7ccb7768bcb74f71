"""Tokens that were valid when they were last shown. Pure.

Behind a proxy all ask from one address: while somebody there guesses tokens, those who have one go on.
"""

from collections import OrderedDict
from threading import Lock
from typing import Final

#: who has not asked for longest is forgotten first
_REMEMBERED: Final = 10_000


class SeenTokens:
    """By their hashes. For any thread."""

    def __init__(self) -> None:
        self._hashes: OrderedDict[str, None] = OrderedDict()
        self._lock = Lock()

    def __contains__(self, sha256: str) -> bool:
        return sha256 in self._hashes

    def note(self, sha256: str, *, is_valid: bool) -> None:
        """What the ledger has just said of it."""
        with self._lock:
            self._hashes.pop(sha256, None)
            if is_valid:
                self._hashes[sha256] = None
            if len(self._hashes) > _REMEMBERED:
                self._hashes.popitem(last=False)
