"""Whether the farm's Redis answers, for who looks at a page: nobody waits for it, and however many look, one asks."""

import time
from threading import Lock, Thread
from typing import Final

from farm.embedded_redis import embedded_url
from schemas.errors import NightshiftError
from schemas.settings import Settings

_SECONDS: Final = 5.0


class RedisWatch:
    """For any thread. Until the first answer it is believed to be well."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = Lock()
        self._answers = True
        self._is_asked = False
        self._asked_at = float("-inf")

    def answers(self) -> bool:
        """As it was lately. Asks again every few seconds, on a thread of its own, which waits for one that hangs."""
        with self._lock:
            if not self._is_asked and time.monotonic() - self._asked_at >= _SECONDS:
                self._is_asked = True
                Thread(target=self._ask, name="redis-watch", daemon=True).start()
            return self._answers

    def _ask(self) -> None:
        answers = does_answer(self._settings)
        with self._lock:
            self._answers, self._is_asked, self._asked_at = answers, False, time.monotonic()


def does_answer(settings: Settings) -> bool:
    """Whether the Redis of the settings does; one that refuses answers, too."""
    from redis.exceptions import RedisError, ResponseError  # noqa: PLC0415  not before somebody looks at a page

    from farm.redis_client import redis_client  # noqa: PLC0415

    try:
        url = settings.broker_url or embedded_url(settings.home)
        with redis_client(url, settings.broker_timeout_seconds) as client:
            client.ping()
    except ResponseError:
        return True
    except (RedisError, NightshiftError):
        return False
    return True
