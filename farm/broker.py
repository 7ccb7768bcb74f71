"""Celery on Redis: the app that both sides share, publishing of packs, and the length of a queue.

Redis keys: one list for each pair's queue (``nightshift.PAIR``), behind ``broker_prefix``. Messages are hints
(``schemas.messages``); losing every one of them costs time, not jobs.
"""

from collections.abc import Sequence
from typing import Any, Final

import redis
from celery import Celery

from farm.embedded_redis import embedded_url
from farm.envelope import task_entry
from farm.reconnection import SoonAMQP
from farm.redis_client import ANSWER_SECONDS, redis_client
from farm.transport import NAME, TRANSPORT_OPTIONS, OnRefused
from schemas.errors import BrokerRefusedError, BrokerUnavailableError
from schemas.messages import PackMessage
from schemas.safe_url import safe_url
from schemas.settings import Settings

_DOWN: Final = (redis.RedisError, ConnectionError, TimeoutError)


class Broker:
    """The Redis behind a URL. Nothing connects before the first call, and none waits for longer than a few times
    ``answer_seconds``."""

    def __init__(
        self, url: str, prefix: str = "", on_refused: OnRefused | None = None, *, remote_control: bool = False,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:  # fmt: skip
        self._redis = redis_client(url, answer_seconds)
        self.app = celery_app(url, prefix, on_refused, remote_control=remote_control, answer_seconds=answer_seconds)
        self._prefix = prefix
        self.safe_url = safe_url(url)

    def publish(self, queue: str, pack_ids: Sequence[str]) -> None:
        """Tells the queue's workers about packs, in one command, by entries such as Celery makes. After an error they
        may have been told all the same.

        Raises:
            BrokerUnavailableError: Redis does not answer, or refuses.
        """
        if not pack_ids:
            return
        entries = [task_entry(PackMessage(pack_id), queue) for pack_id in pack_ids]
        try:
            self._redis.lpush(f"{self._prefix}{queue}", *entries)
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
        reason = " ".join(str(error).split())
        if isinstance(error, redis.ResponseError):  # full under `noeviction`, a command that this user may not use
            return BrokerRefusedError(f"Redis at {self.safe_url} refuses: {reason}")
        return BrokerUnavailableError(f"Redis at {self.safe_url} does not answer: {reason}")


def open_broker(settings: Settings, on_refused: OnRefused | None = None) -> Broker:
    """The Redis of the settings, else the embedded one of the home folder, whether or not it runs.

    ``on_refused`` is told, on the consumer's thread, of every message that is not one of ours.
    """
    url, seconds = settings.broker_url or embedded_url(settings.home), settings.broker_timeout_seconds
    return Broker(
        url, settings.broker_prefix, on_refused, remote_control=settings.remote_control, answer_seconds=seconds
    )


def celery_app(
    url: str, prefix: str, on_refused: OnRefused | None = None, *, remote_control: bool = False,
    answer_seconds: float = ANSWER_SECONDS,
) -> Celery:  # fmt: skip
    """JSON only, no results, no events, early acknowledgement: leases in SQL stand where others rely on redelivery."""
    ours = url.replace("redis+socket:", f"{NAME}+socket:", 1)
    app = Celery("nightshift", broker=ours, amqp=SoonAMQP, set_as_current=False)
    app.conf.update(
        broker_transport=NAME,
        # kombu would not look at the server's certificate; what a URL says of it (?ssl_ca_certs=...) takes its place
        broker_use_ssl={"ssl_cert_reqs": "required"} if url.startswith("rediss:") else None,
        broker_channel_error_retry=True,  # what Redis refuses (it is read-only) may go as lost connections do
        worker_redirect_stdouts=False,
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        task_publish_retry=False,
        worker_send_task_events=False,
        worker_enable_remote_control=remote_control,
        worker_hijack_root_logger=False,
        worker_disable_prefetch=True,  # else a busy worker hoards packs that others could render
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "global_keyprefix": prefix,
            "max_retries": 0,  # of one publish; consumers reconnect for ever all the same
            "socket_timeout": answer_seconds,
            "socket_connect_timeout": answer_seconds,
            **TRANSPORT_OPTIONS,
            "remote_control": remote_control,
            **({"on_refused": on_refused} if on_refused else {}),
        },
    )
    return app
