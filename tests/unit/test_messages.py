"""Pack messages: one encode, one decode, and nothing else is read."""

import json
from typing import Any

import pytest

from schemas.errors import MessageError
from schemas.messages import CONTRACT_VERSION, PackMessage

PACK_ID = "0123456789abcdef0123456789abcdef"
GOOD = {"version": CONTRACT_VERSION, "pack_id": PACK_ID}


def test_the_wire_form_is_pinned() -> None:
    assert json.dumps(PackMessage(PACK_ID).encode()) == f'{{"version": 1, "pack_id": "{PACK_ID}"}}'


def test_decode_reads_what_encode_wrote() -> None:
    message = PackMessage(PACK_ID)
    assert PackMessage.decode(json.loads(json.dumps(message.encode()))) == message


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({}, "a pack message has version and pack_id; this one has []"),
        ({"pack_id": PACK_ID}, "this one has ['pack_id']"),
        ({**GOOD, "spec": {}}, "this one has ['pack_id', 'spec', 'version']"),
        ({**GOOD, "version": 2}, "reads pack messages of version 1, not 2"),
        ({**GOOD, "version": True}, "not True"),
        ({**GOOD, "version": 1.0}, "not 1.0"),
        ({**GOOD, "version": "1"}, "reads pack messages of version 1"),
        ({**GOOD, "version": None}, "not None"),
        ({**GOOD, "pack_id": PACK_ID.upper()}, "a pack id is 32 hexadecimal digits"),
        ({**GOOD, "pack_id": PACK_ID + "\n"}, "a pack id is 32 hexadecimal digits"),
        ({**GOOD, "pack_id": "../../etc/passwd"}, "not '../../etc/passwd'"),
        ({**GOOD, "pack_id": 7}, "a pack id is 32 hexadecimal digits"),
        ({**GOOD, "pack_id": "x" * 100_000}, "a pack id is 32 hexadecimal digits"),
    ],
)
def test_any_other_message_is_refused(content: dict[str, Any], sentence: str) -> None:
    with pytest.raises(MessageError) as error:
        PackMessage.decode(content)
    assert sentence in str(error.value)
    assert len(str(error.value)) < 200


def test_a_message_is_frozen() -> None:
    with pytest.raises(AttributeError):
        PackMessage(PACK_ID).pack_id = "x"  # type: ignore[misc]
