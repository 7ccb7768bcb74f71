"""Seeds for rows that have none."""

import hashlib


def derived_seed(base_seed: int, picture: str, num_before: int) -> int:
    """The first 8 bytes, big-endian, of sha256 over canonical JSON of base seed (as text), ``num_before`` and spec.

    ``picture``: canonical JSON of the spec without seed, and without ``output``: a row in another format is the same
    picture. ``num_before``: how many rows without a seed had the same spec before this one. The row's line number has
    no part in it: a row keeps its image when others are added before it, or the file is sorted.
    """
    content = f'{{"base_seed":"{base_seed}","repeat":{num_before},"spec":{picture}}}'
    return int.from_bytes(hashlib.sha256(content.encode()).digest()[:8], "big")
