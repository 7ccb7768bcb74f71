"""Celery on Redis: the app that both sides share, publishing of packs, and the length of a queue.

Redis keys: one list for each pair's queue (``nightshift.PAIR``), behind ``broker_prefix``. Messages are hints
(``schemas.messages``); losing every one of them costs time, not jobs.
"""

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import kombu.exceptions
import redis
from celery import Celery

from farm.embedded_redis import embedded_url
from farm.reconnection import SoonAMQP
from farm.redis_client import redis_client
from schemas.errors import BrokerUnavailableError
from schemas.messages import TASK_NAME, PackMessage
from schemas.settings import Settings

_TIMEOUT_SECONDS: Final = 5
_DOWN: Final = (kombu.exceptions.OperationalError, redis.RedisError, ConnectionError, TimeoutError)


class Broker:
    """The Redis behind a URL. Nothing connects before the first call."""

    def __init__(self, url: str, prefix: str = "") -> None:
        self._redis = redis_client(url)
        self.app = celery_app(url, prefix)
        self._prefix = prefix
        self.safe_url = _without_password(url)

    def publish(self, queue: str, pack_ids: Sequence[str]) -> None:
        """Tells the queue's workers about packs. After an error some of them may have been told all the same.

        Raises:
            BrokerUnavailableError: Redis does not answer, or refuses.
        """
        try:
            with self.app.producer_pool.acquire(block=True, timeout=_TIMEOUT_SECONDS) as producer:
                for pack_id in pack_ids:
                    message = PackMessage(pack_id).encode()
                    self.app.send_task(TASK_NAME, kwargs=message, queue=queue, producer=producer, retry=False)
        except _DOWN as error:
            raise self._sentence(error) from error

    def queue_length(self, queue: str) -> int:
        """How many messages wait in the queue. Raises BrokerUnavailableError."""
        try:
            return int(self._redis.llen(f"{self._prefix}{queue}"))
        except _DOWN as error:
            raise self._sentence(error) from error

    def info(self) -> dict[str, Any]:
        """Redis' own INFO. Raises BrokerUnavailableError when it does not answer."""
        try:
            return dict(self._redis.info())
        except _DOWN as error:
            raise self._sentence(error) from error

    def close(self) -> None:
        self.app.close()
        self._redis.close()

    def _sentence(self, error: Exception) -> BrokerUnavailableError:
        # kombu wraps what Redis said: full under `noeviction`, a command that this user may not use
        refused = isinstance(error, redis.ResponseError) or isinstance(error.__cause__, redis.ResponseError)
        verb = "refuses" if refused else "does not answer"
        return BrokerUnavailableError(f"Redis at {self.safe_url} {verb}: {' '.join(str(error).split())}")


def open_broker(settings: Settings) -> Broker:
    """The Redis of the settings, else the embedded one of the home folder, whether or not it runs."""
    return Broker(settings.broker_url or embedded_url(settings.home), settings.broker_prefix)


def celery_app(url: str, prefix: str) -> Celery:
    """JSON only, no results, no events, early acknowledgement: leases in SQL stand where others rely on redelivery."""
    app = Celery("nightshift", broker=url, amqp=SoonAMQP, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        task_publish_retry=False,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_disable_prefetch=True,  # else a busy worker hoards packs that others could render
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "global_keyprefix": prefix,
            "max_retries": 0,  # of one publish; consumers reconnect for ever all the same
            "socket_timeout": _TIMEOUT_SECONDS,
            "socket_connect_timeout": _TIMEOUT_SECONDS,
        },
    )
    return app


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    if parts.password is None:
        return url
    user = f"{parts.username}:" if parts.username else ":"
    return parts._replace(netloc=f"{user}***@{parts.netloc.rpartition('@')[2]}").geturl()
