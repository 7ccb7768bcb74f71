"""kombu's Redis transport, made for hints: what strangers write is refused, and Redis keeps lists and nothing else.

Redis keys: the queues alone. kombu's tables of bindings are not written, for messages go to a queue by its name; nor
its copies of unacknowledged messages, for the dispatcher publishes a lost hint again. So a publisher needs LPUSH, a
consumer BRPOP, and both LLEN, to see what waits (docs/security.md).

With ``remote_control`` Celery's questions to workers come by publish and subscribe; each answer goes to the list of the
one who asked, ``ID.reply.celery.pidbox``, which Redis forgets after a while.
"""

import logging
import time
from collections.abc import Callable
from queue import Empty
from typing import Any, Final

from kombu.transport import TRANSPORT_ALIASES, redis
from redis.exceptions import ResponseError

from farm.envelope import pack_message, task_entry
from schemas.errors import MessageError

log = logging.getLogger("nightshift.broker")

#: is told why a message was refused
OnRefused = Callable[[str], None]
#: kombu's name of this transport
NAME: Final = "nightshift"
#: for ``broker_transport_options``, beside ``on_refused``
TRANSPORT_OPTIONS: Final = {"ack_emulation": False, "priority_steps": [0]}
_PAUSE_SECONDS: Final = 1.0
#: of the exchange for answers, and so of the ends of their queues' names
_REPLIES: Final = "reply.celery.pidbox"
#: An answer that comes when nobody waits for it any more stays this long.
_REPLY_MILLISECONDS: Final = 60_000


class _Channel(redis.Channel):
    do_restore = False  # a hint that a stopping worker has popped is published again
    from_transport_options = (  # type: ignore[assignment]
        *redis.Channel.from_transport_options,
        "on_refused",
        "remote_control",
    )
    remote_control = False

    def on_refused(self, reason: str) -> None:
        log.warning("message refused: %s", reason)

    def _create_client(self, asynchronous: bool = False) -> Any:
        client = super()._create_client(asynchronous)  # type: ignore[no-untyped-call]
        client.set_response_callback("BRPOP", self._checked)  # before kombu reads what was popped
        return client

    def _checked(self, reply: list[bytes] | None, **_: Any) -> tuple[bytes, str | bytes] | None:
        """None, as when nothing came, for a message that is refused."""
        if not reply:
            return None
        queue, entry = reply
        if self.remote_control and queue.endswith(_REPLIES.encode()):
            return queue, entry  # nobody listens there but an operator who has asked
        try:
            return queue, task_entry(pack_message(entry), queue.decode(errors="replace"))
        except MessageError as error:
            self.on_refused(str(error))
            return None

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call]
        except ResponseError as error:
            if not str(error).startswith("WRONGTYPE"):
                raise
            self.on_refused("the queue's key in Redis holds no list: somebody else has written it; delete it")
            time.sleep(_PAUSE_SECONDS)  # it is so until somebody does
            raise Empty from None

    def _queue_bind(self, exchange: str, routing_key: str, _pattern: str, queue: str) -> None:
        """Written nowhere. We have no exchanges but those of remote control: one to all, and one for answers."""
        if self.remote_control and self.typeof(exchange).type == "fanout":  # type: ignore[no-untyped-call]
            self._fanout_queues[queue] = (exchange, routing_key)

    def maybe_refresh_binding_expiry(self) -> None:
        """Of what is written nowhere."""

    def _lookup(self, exchange: str, routing_key: str, default: str | None = None) -> list[str]:
        if self.remote_control and exchange == _REPLIES:
            return [f"{routing_key}.{exchange}"]
        found: list[str] = super()._lookup(exchange, routing_key, default)  # type: ignore[no-untyped-call]
        return found

    def _put(self, queue: str, message: Any, **options: Any) -> None:
        super()._put(queue, message, **options)  # type: ignore[no-untyped-call]
        if queue.endswith(_REPLIES):
            self.client.pexpire(queue, _REPLY_MILLISECONDS)

    def _delete(self, queue: str, *_: Any, **__: Any) -> None:
        """Of who leaves: a queue for answers ends by itself, and that of questions is none of Redis'."""
        self.auto_delete_queues.discard(queue)

    def _size(self, queue: str) -> int:
        """Asked for when a queue is declared, and used by nobody."""
        return 0


class Transport(redis.Transport):
    """Found by kombu under its name, and not to be made by hand."""

    Channel = _Channel


TRANSPORT_ALIASES[NAME] = f"{__name__}:Transport"
