"""How a Celery worker comes back to a Redis that was away. Celery's own waits grow to 30 s, and cannot be set."""

from typing import Any, Final, Self

import kombu
from celery.app.amqp import AMQP

#: between two tries of a worker to reach Redis
MAX_WAIT_SECONDS: Final = 4


class SoonConnection(kombu.Connection):  # type: ignore[misc,name-defined]
    """kombu's connection; what waits for it waits a few seconds between two tries, for ever."""

    def ensure_connection(self, *args: Any, **kwargs: Any) -> Self:
        return super().ensure_connection(*args, **{"interval_max": MAX_WAIT_SECONDS, **kwargs})  # type: ignore[no-any-return]

    def info(self) -> dict[str, Any]:
        """What ``celery inspect stats`` tells of the broker, without what is no JSON."""
        return {**super().info(), "transport_options": {}}


class SoonAMQP(AMQP):  # type: ignore[misc]
    """Celery's part that makes connections."""

    Connection = SoonConnection
