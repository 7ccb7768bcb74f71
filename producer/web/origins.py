"""Whom the web page believes, by what a request says of itself. Pure.

Without a token it is open to this machine alone. A browser on this machine asks in the name of every page that it
shows: so the ``Host`` must be a name that we are reached by (a stranger's name that leads here is DNS rebinding), and
what changes something must come from a page of ours.
"""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import urlsplit

from schemas.errors import SettingsError

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_ANY_ADDRESS: Final = frozenset({"0.0.0.0", "::", ""})  # noqa: S104  nothing is bound here
#: what proxies add; one that adds none cannot be told from this machine itself
_FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via")
_HOST: Final = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{1,5}))?")


@dataclass(frozen=True)
class Hosts:
    """The names that we are reached by, each with any port or with the one that it names."""

    names: frozenset[str]

    @classmethod
    def parse(cls, configured: str, bound: str) -> Self:
        """``configured``: the setting; ``bound``: where we listen. Raises SettingsError for a name that is none."""
        named = [text.strip() for text in configured.split(",") if text.strip()]
        for text in named:
            if _HOST.fullmatch(text) is None:
                raise SettingsError(f"web_hosts: {text!r} is no host; farm.example.org and 10.0.0.5:8470 would be")
        own = _OWN_NAMES | ({bound.lower()} - _ANY_ADDRESS)
        return cls(own | {_normal(text) for text in named})

    def allow(self, header: str | None) -> bool:
        """Whether a request with this ``Host`` is meant for us."""
        found = _HOST.fullmatch(header or "")
        if header is None or found is None:
            return False
        return _normal(header) in self.names or (found[1] or found[2]).lower() in self.names


def is_loopback(address: str | None) -> bool:
    """Whether an address, or a name to listen at, is of this machine alone."""
    if address == "localhost":
        return True
    try:
        ip = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback


def is_from_this_machine(peer: str | None, headers: Mapping[str, str]) -> bool:
    """Whether nobody else asks through a proxy, as far as can be told."""
    return is_loopback(peer) and not any(name in headers for name in _FORWARDED)


def is_over_tls(scheme: str, headers: Mapping[str, str]) -> bool:
    """Whether the browser speaks TLS, to us or to a proxy, wherever that is.

    For the cookie's ``Secure`` alone, so anybody is believed: whoever lies gets a cookie that his own browser drops. Of
    several proxies the first one has spoken with the browser.
    """
    return scheme == "https" or headers.get("x-forwarded-proto", "").partition(",")[0].strip().lower() == "https"


def cross_site_flaw(method: str, is_api: bool, headers: Mapping[str, str]) -> str | None:
    """Why a browser sends this in the name of a page that is not ours; None where it does not.

    Programs send neither header, and no page can make them. The scheme is not compared: behind a proxy it differs.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if method in SAFE_METHODS:
        is_read = is_api and headers.get("sec-fetch-mode") != "navigate" and site in ("cross-site", "same-site")
        return "it is read by a page of another site" if is_read else None
    if site is not None and site not in ("same-origin", "none"):
        return f"it comes from a page of another site (Sec-Fetch-Site: {site})"
    if origin is not None and not _is_same(origin, headers.get("host", "")):
        return "it comes from a page of another site (Origin)"
    return None


def _is_same(origin: str, host: str) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(host) and parts.netloc.lower() == host.lower()


def _normal(host: str) -> str:
    """Lower case, an IPv6 address without brackets where no port follows."""
    lowered = host.lower()
    return lowered[1:-1] if lowered.startswith("[") and lowered.endswith("]") else lowered
