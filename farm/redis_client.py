"""redis-py clients for the broker URLs that kombu reads."""

from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from schemas.errors import SettingsError

_CLIENT_SECONDS: Final = 5.0


def redis_client(url: str) -> Redis:
    """A redis-py client for a broker URL: ``redis://``, ``rediss://``, or kombu's ``redis+socket://``.

    It waits 5 s for an answer at most, and tries twice, so that a connection that broke while idle goes unnoticed.

    Raises:
        SettingsError: the URL is of another kind.
    """
    retry = Retry(NoBackoff(), 1)
    parts = urlsplit(url)
    try:
        if parts.scheme != "redis+socket":
            return Redis.from_url(
                url, retry=retry, socket_timeout=_CLIENT_SECONDS, socket_connect_timeout=_CLIENT_SECONDS
            )
        database = int(parse_qs(parts.query).get("virtual_host", ["0"])[0])
    except ValueError:
        raise SettingsError(
            f"broker_url starts with {parts.scheme!r}; redis://HOST:6379/0 or redis+socket:///PATH would be right"
        ) from None
    return Redis(unix_socket_path=unquote(parts.path), db=database, retry=retry, socket_timeout=_CLIENT_SECONDS)
