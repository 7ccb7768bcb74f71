"""A manifest behind a URL of any kind that fsspec knows, as a stream. Only what the user typed comes here.

Where a store's package looks for credentials is its own affair; what it says is told without them.
"""

import io
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, BinaryIO, Final

from farm.secrets import without_secrets
from schemas.errors import ManifestError, MissingManifestError, NightshiftError, StorageError
from schemas.printable import printable_start
from schemas.safe_url import safe_url, url_secrets

_BLOCK_BYTES: Final = 1 << 22
_CONNECT_SECONDS: Final = 30
#: without a byte
_SILENT_SECONDS: Final = 60
_DENIED: Final = frozenset({401, 403})
_GONE: Final = frozenset({404, 410})
_MAX_SAID: Final = 300
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+")
_HIDDEN: Final = "***"


@contextmanager
def opened_url(url: str, *, by_parts: bool = False) -> Iterator[BinaryIO]:
    """What lies there, while it is open: from front to end, or with ``by_parts`` wherever one seeks.

    Raises:
        ManifestError: no such file, no such kind of URL, or no right to read it.
        StorageError: nobody answers, or no longer.
    """
    with said_of_url(url):
        filesystem, path = filesystem_of(url)
        stream = filesystem.open(path, "rb", **_reading(url, by_parts=by_parts))
    with closing(stream):
        yield _RemoteFile(stream, url, by_parts=by_parts)  # type: ignore[misc]


def filesystem_of(url: str) -> tuple[Any, str]:
    """fsspec's file system, and the path in it."""
    from fsspec.core import url_to_fs  # noqa: PLC0415  reading a local file needs none of it

    filesystem, path = url_to_fs(url, **_connecting(url))
    return filesystem, str(path)


def is_http(url: str) -> bool:
    return url.lower().startswith(("http://", "https://"))


def _connecting(url: str) -> dict[str, Any]:
    """aiohttp's own limit is five minutes for all of the file; this one is for each wait. Nothing is unpacked on the
    way: many servers call a .gz an encoding of what is in it."""
    if not is_http(url):
        return {}
    try:
        from aiohttp import ClientTimeout  # noqa: PLC0415
    except ImportError:
        return {}  # fsspec says it
    timeout = ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_SILENT_SECONDS)
    headers = {"Accept-Encoding": "identity"}
    return {"client_kwargs": {"timeout": timeout, "headers": headers, "auto_decompress": False}}


def _reading(url: str, *, by_parts: bool) -> dict[str, Any]:
    """Of HTTP one answer is read to its end: not every server gives parts, and parts may be of two versions."""
    if by_parts:
        return {"block_size": _BLOCK_BYTES, "cache_type": "none"}
    return {"block_size": 0} if is_http(url) else {"block_size": _BLOCK_BYTES, "cache_type": "readahead"}


class _RemoteFile(io.RawIOBase):
    """A file of fsspec's whose errors are ours."""

    def __init__(self, stream: Any, url: str, *, by_parts: bool) -> None:
        self._stream = stream
        self._url = url
        self._by_parts = by_parts

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._by_parts

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with said_of_url(self._url):
            return int(self._stream.seek(offset, whence))

    def tell(self) -> int:
        return int(self._stream.tell())

    def read1(self, num_bytes: int) -> bytes:
        """What ``producer.manifests.manifest_file`` reads by. Without errors of anybody else's."""
        return self.read(num_bytes) or b""

    def readinto(self, buffer: Any) -> int:
        with said_of_url(self._url):
            content = self._stream.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)


@contextmanager
def said_of_url(url: str) -> Iterator[None]:
    """Whatever a store's package raises, as one sentence without secrets. Each kind of store has errors of its own, and
    a traceback of theirs quotes the URL: so this is every exception. Raises ManifestError, StorageError."""
    try:
        yield
    except NightshiftError:
        raise
    except Exception as error:
        raise _as_ours(error, url) from None


def _as_ours(error: Exception, url: str) -> NightshiftError:
    name = printable_start(safe_url(url), _MAX_SAID)
    cause = error.__cause__ if isinstance(error, FileNotFoundError) else None  # fsspec's HTTP calls everything that
    status = getattr(cause or error, "status", None)
    if status in _DENIED or isinstance(error, PermissionError):
        return ManifestError(f"cannot read {name}: access is denied{f' ({status})' if status else ''}")
    if status in _GONE or (isinstance(error, FileNotFoundError) and cause is None):
        return MissingManifestError(f"there is no file {name}")
    if isinstance(error, IsADirectoryError):
        return ManifestError(f"{name} is a folder; a manifest is one file")
    said = _without_secrets(f"the server answers {status}" if status else str(cause or error), url)
    if isinstance(error, ImportError | ValueError):
        return ManifestError(f"cannot read {name}: {said}")
    return StorageError(f"cannot read {name}: {said or type(cause or error).__name__}")


def _without_secrets(text: str, url: str) -> str:
    """A redirect's URL may carry a token as well as the one that was typed."""
    shown = _URL.sub(lambda found: safe_url(found[0]), text)
    for secret in sorted(url_secrets(url), key=len, reverse=True):
        shown = shown.replace(secret, _HIDDEN)
    return printable_start(" ".join(without_secrets(shown).split()), _MAX_SAID)
