"""Webhooks: where they may go, how they are signed, when they are sent again. Pure; names are resolved elsewhere."""

import hashlib
import hmac
import ipaddress
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import urlsplit

from schemas.errors import SettingsError

STARTED: Final = "batch.started"
FINISHED: Final = "batch.finished"
FAILURE_SHARE: Final = "batch.failure_share_reached"
EVENTS: Final = (STARTED, FINISHED, FAILURE_SHARE)
MAX_ATTEMPTS: Final = 8
_FIRST_WAIT_SECONDS: Final = 10.0
_MAX_WAIT_SECONDS: Final = 3600.0
_MIN_SECRET_CHARACTERS: Final = 16
_PORTS: Final = {"https": 443, "http": 80}
#: answers that say: later, perhaps
_LATER: Final = frozenset({408, 425, 429})


@dataclass(frozen=True)
class WebhookTarget:
    """Where the webhook is. ``path``: with the query. ``addresses``: those that ``webhook_hosts`` names themselves."""

    is_https: bool
    host: str
    port: int
    path: str
    secret: str
    addresses: frozenset[str]

    @classmethod
    def parse(cls, url: str, secret: str, hosts: str) -> Self:
        """Raises SettingsError: it is no URL of the web, its host is not allowed, or the secret is too short."""
        allowed = {host.strip().lower() for host in hosts.split(",") if host.strip()}
        scheme, host, port, path = _parts(url)
        if not {_written(host, None), _written(host, port)} & allowed:
            raise SettingsError(
                f"webhook_url leads to {_written(host, port)}, which webhook_hosts does not allow; allowed are:"
                f" {', '.join(sorted(allowed)) or 'none'}"
            )
        if scheme == "http" and not _is_loopback(host):
            raise SettingsError("webhook_url is http, which is for this machine itself (127.0.0.1); use https")
        if len(secret) < _MIN_SECRET_CHARACTERS:
            raise SettingsError(
                f"webhook_secret has to be {_MIN_SECRET_CHARACTERS} characters or more; what is sent is signed with it"
            )
        return cls(scheme == "https", host, port, path, secret, frozenset(_addresses(allowed | {host})))

    def may_connect(self, address: str) -> bool:
        """Whether the host may be at this address: a public one, or one that webhook_hosts names itself."""
        ip = ipaddress.ip_address(address.partition("%")[0])
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        if str(ip) in self.addresses or (self.host == "localhost" and ip.is_loopback):
            return True
        return self.is_https and ip.is_global and not ip.is_multicast

    @property
    def host_header(self) -> str:
        return _written(self.host, None if self.port == _PORTS["https" if self.is_https else "http"] else self.port)


def signature(secret: str, timestamp: int, body: bytes) -> str:
    """``t=1700000000,v1=…``: HMAC-SHA256 of timestamp, a full stop, and the body."""
    digest = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={timestamp},v1={digest}"


def is_accepted(status: int) -> bool:
    return 200 <= status < 300


def is_worth_a_retry(status: int) -> bool:
    """Redirects are not followed, and a request that is refused once is refused again."""
    return status >= 500 or status in _LATER


def wait_seconds(num_attempts: int) -> float:
    """Before the next attempt, after so many: 10 s, 40 s, ... up to an hour."""
    return min(_FIRST_WAIT_SECONDS * 4.0 ** min(num_attempts - 1, 10), _MAX_WAIT_SECONDS)


def _parts(url: str) -> tuple[str, str, int, str]:
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        raise SettingsError("webhook_url is no URL; https://hooks.example.org/nightshift would be one") from None
    if parts.scheme not in _PORTS or not host or not url.isascii() or not url.isprintable() or " " in url:
        raise SettingsError("webhook_url is no URL of the web; https://hooks.example.org/nightshift would be one")
    if parts.username or parts.password:
        raise SettingsError("webhook_url carries a user or a password; what it sends is signed with webhook_secret")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return parts.scheme, host, port or _PORTS[parts.scheme], path


def _written(host: str, port: int | None) -> str:
    bracketed = f"[{host}]" if ":" in host else host
    return bracketed if port is None else f"{bracketed}:{port}"


def _is_loopback(host: str) -> bool:
    return host == "localhost" or any(ipaddress.ip_address(address).is_loopback for address in _addresses({host}))


def _addresses(hosts: set[str]) -> set[str]:
    """Those that are addresses and no names."""
    found = set()
    for written in hosts:
        host = written.partition("]")[0].removeprefix("[") if written.startswith("[") else written
        host = host.partition(":")[0] if host.count(":") == 1 else host
        try:
            found.add(str(ipaddress.ip_address(host)))
        except ValueError:
            continue
    return found
