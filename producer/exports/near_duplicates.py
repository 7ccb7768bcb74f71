"""Which perceptual hashes are near to an earlier one. 8 bytes an image and 4 for each band, in flat arrays.

Hashes of 64 bits are cut into one band more than bits may differ: two that are near have at least one band in common,
so only those that share a band are compared (the pigeonhole principle; Manku, Jain, Das Sarma 2007, WWW).
"""

from array import array
from typing import Final

HASH_BITS: Final = 64
MAX_DISTANCE: Final = 7
_END: Final = -1


class NearDuplicates:
    """The hashes seen so far. ``distance``: how many bits may differ, 0 to ``MAX_DISTANCE``."""

    def __init__(self, distance: int) -> None:
        num_bands = max(4, distance + 1)  # no wider than 16 bits: each value of a band has a place of its own
        self._distance = distance
        self._width = HASH_BITS // num_bands
        self._hashes = array("Q")
        self._first = [array("i", [_END]) * (1 << self._width) for _ in range(num_bands)]
        self._next = [array("i") for _ in range(num_bands)]

    def find(self, image_hash: int) -> int | None:
        """The place, from 0, of an earlier hash that is near; None where there is none, and then this one is kept."""
        keys = self._bands(image_hash)
        found = next(
            (place for band, key in enumerate(keys) if (place := self._near(band, key, image_hash)) >= 0), None
        )
        if found is None:
            self._keep(image_hash, keys)
        return found

    def _bands(self, image_hash: int) -> list[int]:
        mask = (1 << self._width) - 1
        return [(image_hash >> (band * self._width)) & mask for band in range(len(self._first))]

    def _near(self, band: int, key: int, image_hash: int) -> int:
        place, following = self._first[band][key], self._next[band]
        while place != _END and (self._hashes[place] ^ image_hash).bit_count() > self._distance:
            place = following[place]
        return place

    def _keep(self, image_hash: int, keys: list[int]) -> None:
        place = len(self._hashes)
        self._hashes.append(image_hash)
        for band, key in enumerate(keys):
            self._next[band].append(self._first[band][key])
            self._first[band][key] = place
