"""URLs as they may be shown: without the passwords and tokens that they carry."""

from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from schemas.errors import SettingsError

#: of a query, what is no secret; every other value may be a token, whatever it is called
_SHOWN: Final = frozenset({
    "virtual_host", "db", "ssl_cert_reqs", "ssl_ca_certs", "ssl_check_hostname", "ssl_certfile", "ssl_keyfile", "host",
    "port", "dbname", "user", "sslmode", "sslrootcert", "sslcert", "sslkey", "application_name", "connect_timeout",
    "options",
})  # fmt: skip
_HIDDEN: Final = "***"


def safe_url(url: str) -> str:
    """The URL with ``***`` in place of its password, of a user without one (who may be a token), and of what its query
    says beside names and places. Of one that cannot be read, the scheme alone.
    """
    parts = _parts(url)
    if parts is None:
        return f"{url.partition('://')[0]}://{_HIDDEN}" if "://" in url else _HIDDEN
    beginning, _, query = url.partition("#")[0].partition("?")
    if parts.netloc:
        userinfo, at, host = parts.netloc.rpartition("@")
        name, colon, _ = userinfo.partition(":")
        shown = f"{name if colon else ''}{colon}{_HIDDEN}{at}{host}" if at else host
        beginning = beginning.replace(parts.netloc, shown, 1)
    return beginning + (f"?{'&'.join(_safe_pair(pair) for pair in query.split('&'))}" if query else "")


def url_secrets(url: str) -> set[str]:
    """What ``safe_url`` hides, as it stands in the URL and decoded."""
    parts = _parts(url)
    if parts is None:
        return {url}
    name, colon, password = parts.netloc.rpartition("@")[0].partition(":")
    pairs = [pair.partition("=") for pair in parts.query.split("&")]
    found = [password if colon else name, parts.fragment]
    found += [value if equals else key for key, equals, value in pairs if key not in _SHOWN]
    return {text for secret in found for text in (secret, unquote(secret)) if text}


def is_readable(url: str) -> bool:
    """Whether it is clear where the password ends: / # ? in one stand as %2F %23 %3F, or they end the host."""
    return _parts(url) is not None


def require_no_secrets(setting: str, url: str, instead: str) -> None:
    """Raises SettingsError where the URL carries a password or a token: it would be recorded."""
    if "://" in url and url_secrets(url):
        raise SettingsError(f"{setting} {safe_url(url)} carries a password or a token; {instead}")


def _parts(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port  # read when it is asked for
    except ValueError:
        return None
    ended_early = {":", "@"} & set(parts.netloc) and "@" in parts.path + parts.query + parts.fragment
    return None if ended_early else parts


def _safe_pair(pair: str) -> str:
    name, equals, _ = pair.partition("=")
    return pair if name in _SHOWN else f"{name}={_HIDDEN}" if equals else _HIDDEN
