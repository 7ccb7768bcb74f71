"""redis-py clients for the broker URLs that kombu reads."""

from typing import Final
from urllib.parse import parse_qs, parse_qsl, unquote, urlsplit

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from schemas.errors import SettingsError
from schemas.safe_url import is_readable, safe_url

#: how long an answer is waited for, where no setting says it
ANSWER_SECONDS: Final = 5.0
#: what a URL may say behind its question mark, of which both clients make the same
_QUERY: Final = {
    "redis": frozenset[str](),
    "rediss": frozenset({"ssl_cert_reqs", "ssl_ca_certs", "ssl_check_hostname", "ssl_certfile", "ssl_keyfile"}),
    "redis+socket": frozenset({"virtual_host"}),
}
_CERT_REQS: Final = ("required", "optional", "none")


def redis_client(url: str, answer_seconds: float = ANSWER_SECONDS) -> Redis:
    """A redis-py client for a broker URL: ``redis://``, ``rediss://``, or kombu's ``redis+socket://``.

    It waits so long for an answer at most, and tries twice, so that a connection that broke while idle goes unnoticed.

    Raises:
        SettingsError: the URL is of another kind, or cannot be read.
    """
    check_broker_url(url)
    retry = Retry(NoBackoff(), 1)
    parts = urlsplit(url)
    try:
        if parts.scheme != "redis+socket":
            return Redis.from_url(
                url, retry=retry, socket_timeout=answer_seconds, socket_connect_timeout=answer_seconds
            )
        database = int(parse_qs(parts.query).get("virtual_host", ["0"])[0])
    except ValueError:
        raise SettingsError(f"broker_url {safe_url(url)} has a query that cannot be read") from None
    return Redis(unix_socket_path=unquote(parts.path), db=database, retry=retry, socket_timeout=answer_seconds)


def check_broker_url(url: str) -> None:
    """Raises SettingsError for what is no URL of a Redis, and tells nothing of its password.

    A character of the password that ends the host's part of a URL (/, ?, #) would otherwise be said by whoever reads
    the rest as a port.
    """
    scheme = url.partition("://")[0] if "://" in url else ""
    if scheme not in _QUERY:
        raise SettingsError(
            f"broker_url starts with {scheme[:20]!r}; redis://HOST:6379/0 or redis+socket:///PATH would be right"
        )
    if not is_readable(url):
        raise SettingsError(
            f"broker_url {scheme}://… cannot be read; in a password, signs like / # ? @ [ are written as %2F %23 %3F…"
        )
    query = dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))
    if unknown := sorted(query.keys() - _QUERY[scheme]):
        known = ", ".join(sorted(_QUERY[scheme])) or "nothing"
        raise SettingsError(f"broker_url has {unknown[0][:20]!r} in its query; of {scheme}:// it may have {known}")
    if query.get("ssl_cert_reqs", "required") not in _CERT_REQS:
        raise SettingsError(f"ssl_cert_reqs of broker_url is one of {', '.join(_CERT_REQS)}")
