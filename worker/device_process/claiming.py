"""From a message to a pack in hand. A message is a hint, and anybody on the broker can write one."""

import logging
import time
from dataclasses import dataclass, field
from typing import Any, Final

from farm import ledger, packs
from farm.database import Database
from farm.odd_shapes import ODD_SHAPE_SECONDS, odd_shape_seconds
from farm.workers import count_refused
from schemas.errors import MessageError, UnavailableError
from schemas.messages import PackMessage
from schemas.records import ClaimedPack

log = logging.getLogger("nightshift.worker")

_SAY_AGAIN_SECONDS: Final = 60.0


@dataclass
class Claimer:
    """Threads share it."""

    database: Database
    worker_id: str
    lease_seconds: float
    packs_per_worker: int
    _said_at: float = field(default=float("-inf"), init=False)
    #: of the pack that was claimed last: the shape that the device has, or will have
    _pack_key: str = field(default="", init=False)
    #: how long a pack of another shape may wait
    _odd_seconds: float = field(default=ODD_SHAPE_SECONDS, init=False)

    def message(self, content: dict[str, Any]) -> PackMessage | None:
        """None for a message that is not ours; it is counted."""
        try:
            return PackMessage.decode(content)
        except MessageError as error:
            log.warning("message refused: %s", error)
        try:
            count_refused(self.database, self.worker_id)
        except UnavailableError as error:
            log.warning("the refused message is not counted: %s", error)
        return None

    def claim(self, message: PackMessage) -> ClaimedPack | None:
        """None where there is nothing to claim. Raises UnavailableError."""
        pack = ledger.claim_pack(
            self.database, message.pack_id, self.worker_id, self.lease_seconds, self._pack_key, self._odd_seconds
        )
        if pack is not None:
            self._pack_key = pack.pack_key
        elif not packs.is_known(self.database, message.pack_id):
            self._say_unknown(message.pack_id)
        return pack

    def note_rendered(self, seconds: float) -> None:
        """So long the device was busy with the last pack."""
        self._odd_seconds = odd_shape_seconds(seconds, self.packs_per_worker)

    def _say_unknown(self, pack_id: str) -> None:
        if time.monotonic() - self._said_at < _SAY_AGAIN_SECONDS:
            return
        self._said_at = time.monotonic()
        log.warning(
            "a message names pack %s, which this ledger does not know: does another farm use this Redis?"
            " A broker_prefix of its own keeps each apart",
            pack_id,
        )
