"""What travels over Redis: a hint that a pack waits. The specs stay in the ledger."""

import re
from dataclasses import dataclass
from typing import Any, Final, Self

from schemas.errors import MessageError
from schemas.printable import shown

CONTRACT_VERSION: Final = 1
TASK_NAME: Final = "nightshift.render_pack"

_PACK_ID: Final = re.compile(r"[0-9a-f]{32}")
_FIELDS: Final = {"version", "pack_id"}


@dataclass(frozen=True)
class PackMessage:
    """The id of a pack (32 hexadecimal digits) and the version of the contract it was written under."""

    pack_id: str
    version: int = CONTRACT_VERSION

    def encode(self) -> dict[str, Any]:
        """The task's keyword arguments."""
        return {"version": self.version, "pack_id": self.pack_id}

    @classmethod
    def decode(cls, content: dict[str, Any]) -> Self:
        """Raises MessageError for anything that ``encode`` of this version did not write."""
        if set(content) != _FIELDS:
            raise MessageError(
                f"a pack message has version and pack_id; this one has {shown(sorted(map(str, content)))}"
            )
        version, pack_id = content["version"], content["pack_id"]
        if type(version) is not int or version != CONTRACT_VERSION:  # True and 1.0 are equal to 1
            raise MessageError(f"this worker reads pack messages of version {CONTRACT_VERSION}, not {shown(version)}")
        if not isinstance(pack_id, str) or not _PACK_ID.fullmatch(pack_id):
            raise MessageError(f"a pack id is 32 hexadecimal digits, not {shown(pack_id)}")
        return cls(pack_id)
