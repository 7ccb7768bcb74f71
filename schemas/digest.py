"""Canonical JSON and its sha256: the one way in which Nightshift names content."""

import hashlib
import json
from collections.abc import Mapping
from json.encoder import encode_basestring
from typing import Any, Final

_ENCODER: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
#: A copy of it is made faster than another: OpenSSL looks for the algorithm's code each time.
_NOTHING: Final = hashlib.sha256()


def canonical_json(content: Mapping[str, Any]) -> str:
    """Sorted keys, no spaces, UTF-8 as it is, no NaN: equal content gives equal text."""
    return _ENCODER.encode(content)


def canonical_text(text: str) -> str:
    """A text as it stands in canonical JSON, in quotes."""
    return encode_basestring(text)


def sha256_hex(text: str) -> str:
    """sha256 of the UTF-8 text, 64 hexadecimal digits."""
    digest = _NOTHING.copy()
    digest.update(text.encode())
    return digest.hexdigest()
