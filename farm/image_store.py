"""The image store: any fsspec URL. Keys carry the content's sha256, so no file ever takes the place of another."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import unquote, urlsplit

import fsspec

from farm.store_errors import os_errors_alone
from schemas.errors import SettingsError, StorageError
from schemas.safe_url import require_no_secrets

#: URIs of images are recorded and shown
_CREDENTIALS: Final = "give them where the store's package looks for them (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)"


class ImageStore:
    """Images below one fsspec URL. Not thread-bound: any finisher may put."""

    def __init__(self, url: str) -> None:
        require_no_secrets("images_url", url, _CREDENTIALS)
        self.url = url.rstrip("/")
        self._folder = local_path(self.url)
        if self._folder is not None:
            self.url = self._folder.as_uri()
        else:
            self._filesystem = filesystem(self.url)

    def put(self, content: bytes, sha256: str, suffix: str) -> str:
        """Stores the bytes and returns their URI. When it returns, they are there whole; before, nothing is visible.

        Raises:
            StorageError: the disk is full or read-only, or the store refuses.
        """
        return self.keep(f"{sha256[:2]}/{sha256[2:4]}/{sha256}.{suffix}", content)

    def keep(self, key: str, content: bytes) -> str:
        """As ``put``, under a key whose content is always the same."""
        uri = f"{self.url}/{key}"
        try:
            if self._folder is not None:
                write_atomically(self._folder / key, content)
            else:
                with os_errors_alone():
                    self._filesystem.pipe_file(uri, content)
        except OSError as error:
            raise StorageError(f"cannot store an image below {self.url}: {error.strerror or error}") from error
        return uri

    def has(self, uri: str) -> bool:
        """Whether this image lies in this store. Raises StorageError where the store does not answer."""
        if not uri.startswith(f"{self.url}/"):
            return False
        path = local_path(uri)
        try:
            if path is not None:
                return path.is_file()
            with os_errors_alone():
                return bool(self._filesystem.exists(uri))
        except OSError as error:
            raise StorageError(f"the image store {self.url} does not answer: {error.strerror or error}") from error

    def check(self) -> None:
        """Writes, reads and removes a probe. Raises StorageError with the reason when that fails."""
        name = f".probe-{secrets.token_hex(8)}"
        uri = f"{self.url}/{name}"
        try:
            if self._folder is not None:
                write_atomically(self._folder / name, b"probe")
                (self._folder / name).read_bytes()
                (self._folder / name).unlink()
            else:
                with os_errors_alone():
                    self._filesystem.pipe_file(uri, b"probe")
                    self._filesystem.cat_file(uri)
                    self._filesystem.rm_file(uri)
        except OSError as error:
            raise StorageError(f"the image store {self.url} cannot be written: {error.strerror or error}") from error


def local_path(uri: str) -> Path | None:
    """The absolute path of what lies on this machine's disk (``file://`` URI or plain path); None for any other URL."""
    if "://" not in uri:
        return Path(uri).absolute()
    parts = urlsplit(uri)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def read_image(uri: str) -> bytes:
    """The bytes behind an image's URI. Raises StorageError."""
    path = local_path(uri)
    try:
        if path is not None:
            return path.read_bytes()
        with os_errors_alone(), fsspec.open(uri, "rb") as stream:
            content: bytes = stream.read()
        return content
    except OSError as error:
        raise StorageError(f"cannot read {uri}: {error.strerror or error}") from error


def write_atomically(path: Path, content: bytes) -> None:
    """As ``writing_atomically``, for content in memory. Raises OSError."""
    with writing_atomically(path) as stream:
        stream.write(content)


@contextmanager
def writing_atomically(path: Path) -> Iterator[BinaryIO]:
    """Temporary name in the same folder, fsync, rename, fsync of the folder: after a power cut it is whole or absent.

    Raises OSError; the temporary file is removed then, and after any other error inside.
    """
    if not path.name:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def filesystem(url: str, named: str = "images_url") -> Any:
    """fsspec's filesystem for the URL. ``named``: the setting or option that it comes from.

    Raises SettingsError for a scheme that is unknown or lacks its package.
    """
    try:
        return fsspec.core.url_to_fs(url)[0]
    except (ValueError, ImportError) as error:
        raise SettingsError(f"{named} {urlsplit(url).scheme}://… cannot be used: {error}") from None
