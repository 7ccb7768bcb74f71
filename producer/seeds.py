"""Seeds for rows that have none."""

import hashlib
from collections.abc import Mapping
from typing import Any

from schemas.digest import canonical_json


def derived_seed(base_seed: int, unseeded_spec: Mapping[str, Any], num_before: int) -> int:
    """The first 8 bytes, big-endian, of sha256 over canonical JSON of base seed (as text), ``num_before`` and spec.

    ``num_before``: how many rows without a seed had the same spec before this one. The row's line number has no part
    in it: a row keeps its image when others are added before it, or the file is sorted. Nor has ``output``: a row in
    another format is the same picture.
    """
    picture = {field: value for field, value in unseeded_spec.items() if field != "output"}
    content = canonical_json({"base_seed": str(base_seed), "repeat": num_before, "spec": picture})
    return int.from_bytes(hashlib.sha256(content.encode()).digest()[:8], "big")
