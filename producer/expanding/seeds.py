"""Seeds for rows that have none."""

from typing import Final

from schemas.digest import sha256_hex

_SEED_DIGITS: Final = 16


def seed_digest(base_seed: int, picture: str, num_before: int) -> str:
    """sha256 over canonical JSON of base seed (as text), ``num_before`` and spec: its beginning is the row's seed.

    ``picture``: canonical JSON of the spec without seed, and without ``output``: a row in another format is the same
    picture. ``num_before``: how many rows without a seed had the same spec before this one. The row's line number has
    no part in it: a row keeps its image when others are added before it, or the file is sorted.
    """
    return sha256_hex(f'{{"base_seed":"{base_seed}","repeat":{num_before},"spec":{picture}}}')


def seed_of(digest: str) -> int:
    """The first 8 bytes, big-endian."""
    return int(digest[:_SEED_DIGITS], 16)
