"""Where the next page of a list begins, as opaque text. Pure.

A cursor holds the last key of its page, not a number of rows: whatever comes and goes meanwhile, the pages that follow
give no row twice and leave none out. It is good for the list that gave it alone.
"""

import base64
import binascii
import hashlib
import json
from typing import Final

from schemas.errors import RequestError

MAX_CHARACTERS: Final = 200
_LIST_CHARACTERS: Final = 12


def cursor(after: int, *listed: object) -> str:
    """``listed``: what the list is of: its name, its filters."""
    content = json.dumps([_digest(listed), after], separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def after_cursor(text: str | None, *listed: object) -> int | None:
    """The key that the cursor holds; None for no cursor. Raises RequestError for what is none, or another list's."""
    if text is None:
        return None
    try:
        content = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
        digest, after = content
    except (ValueError, TypeError, binascii.Error, RecursionError):
        raise _refusal("it is none that was given here") from None
    if type(after) is not int or not isinstance(digest, str) or not 0 <= after < 2**63:
        raise _refusal("it is none that was given here")
    if digest != _digest(listed):
        raise _refusal("it was given with other filters")
    return after


def _digest(listed: tuple[object, ...]) -> str:
    return hashlib.sha256(json.dumps(listed, default=str).encode()).hexdigest()[:_LIST_CHARACTERS]


def _refusal(reason: str) -> RequestError:
    return RequestError(422, "cursor", f"the cursor cannot be used: {reason}; begin without one")
