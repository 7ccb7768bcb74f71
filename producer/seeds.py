"""Seeds for rows that have none."""

import hashlib
from collections.abc import Mapping
from typing import Any

from schemas.digest import canonical_json


def derived_seed(base_seed: int, unseeded_spec: Mapping[str, Any], repeat: int) -> int:
    """The first 8 bytes, big-endian, of sha256 over canonical JSON of base seed (as text), repeat number and spec.

    Never of the row's line number: a row keeps its image when others are added before it, or the file is sorted.
    """
    content = canonical_json({"base_seed": str(base_seed), "repeat": repeat, "spec": unseeded_spec})
    return int.from_bytes(hashlib.sha256(content.encode()).digest()[:8], "big")
