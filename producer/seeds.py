"""Seeds for rows that have none."""

import hashlib
from collections.abc import Mapping
from typing import Any

from schemas.digest import canonical_json


def derived_seed(base_seed: int, unseeded_spec: Mapping[str, Any], num_before: int) -> int:
    """The first 8 bytes, big-endian, of sha256 over canonical JSON of base seed (as text), ``num_before`` and spec.

    ``num_before``: how many rows without a seed had the same spec before this one. The row's line number has no part
    in it: a row keeps its image when others are added before it, or the file is sorted.
    """
    content = canonical_json({"base_seed": str(base_seed), "repeat": num_before, "spec": unseeded_spec})
    return int.from_bytes(hashlib.sha256(content.encode()).digest()[:8], "big")
