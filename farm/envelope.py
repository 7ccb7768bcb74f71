"""The entry of a Redis list that Celery makes of a pack message, read as what anybody may have written there.

Celery's task protocol 2 in kombu's envelope: JSON, whose body is JSON in base64. Nothing of an entry is handed on. What
says a pack message and no more is written anew for Celery, so a stranger's callbacks, chains, times and reply queues
have no way in. https://docs.celeryq.dev/en/stable/internals/protocol.html
"""

import base64
import json
import uuid
from typing import Any, Final

from schemas.errors import MessageError
from schemas.messages import TASK_NAME, PackMessage

#: ours have about 700
MAX_ENTRY_BYTES: Final = 64 << 10

_CONTENT_TYPE: Final = "application/json"
#: what Celery says of every task; every other header would ask for something
_TOLD: Final = frozenset({"lang", "task", "id", "root_id", "origin", "argsrepr", "kwargsrepr"})
_NO_FOLLOWERS: Final = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def pack_message(entry: bytes) -> PackMessage:
    """What the entry says. Raises MessageError for all that our own publishing would not write."""
    if len(entry) > MAX_ENTRY_BYTES:
        raise MessageError(f"a message has {MAX_ENTRY_BYTES:,} bytes at most; this one has {len(entry):,}")
    envelope = _object(_parsed(entry), "a message")
    if envelope.get("content-type") != _CONTENT_TYPE:
        raise MessageError(f"a message is {_CONTENT_TYPE}, not {_shown(envelope.get('content-type'))}")
    _check_headers(_object(envelope.get("headers"), "its headers"))
    body = _parsed(_decoded(envelope.get("body")))
    if not isinstance(body, list) or len(body) != 3 or body[0] != []:
        raise MessageError(f"the body of a message is [[], a pack message, {{}}], not {_shown(body)}")
    followers = _object(body[2], "the third part of its body")
    asks = next((name for name, value in followers.items() if not _says_nothing(value)), None)
    if asks is not None:
        raise MessageError(f"a message has nothing to run after it; this one has {_shown(asks)}")
    return PackMessage.decode(_object(body[1], "the second part of its body"))


def task_entry(message: PackMessage, queue: str) -> str:
    """The entry, as Celery's consumer reads it, that says this and nothing else."""
    task_id = str(uuid.uuid4())
    body = json.dumps([[], message.encode(), _NO_FOLLOWERS]).encode()
    content = {
        "body": base64.b64encode(body).decode(),
        "content-type": _CONTENT_TYPE,
        "content-encoding": "utf-8",
        "headers": {"lang": "py", "task": TASK_NAME, "id": task_id, "root_id": task_id, "retries": 0},
        "properties": {
            "correlation_id": task_id,
            "delivery_tag": str(uuid.uuid4()),
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": queue},
            "priority": 0,
            "body_encoding": "base64",
        },
    }
    return json.dumps(content)


def _check_headers(headers: dict[str, Any]) -> None:
    if headers.get("task") != TASK_NAME:
        raise MessageError(f"the task of a message is {TASK_NAME}, not {_shown(headers.get('task'))}")
    asks = next((name for name, value in headers.items() if name not in _TOLD and not _says_nothing(value)), None)
    if asks is not None:
        raise MessageError(f"a message has no header {_shown(asks)}; this one has {_shown(headers[asks])} there")


def _says_nothing(value: object) -> bool:
    return not value or value == [None, None]  # two limits of time, neither of them set


def _decoded(body: object) -> bytes:
    try:
        return base64.b64decode(body if isinstance(body, str) else "?", validate=True)
    except ValueError:
        raise MessageError("the body of a message is base64") from None


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise MessageError(f"a message is JSON; this one begins with {_shown(content)}") from None


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MessageError(f"{what} should be an object, not {_shown(value)}")
    return value


def _shown(value: object) -> str:
    """The beginning of what a stranger wrote, in printable characters; bounded before it is turned into text."""
    return ascii(value[:40] if isinstance(value, str | bytes | list) else value)[:60]
