"""The files that lie in an image store, one after another, and the removal of one.

On a local disk no symbolic link is followed below the store's own folder: a link is one more stranger's file.
"""

import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

from farm.image_store import ImageStore, filesystem, local_path
from farm.store_errors import os_errors_alone
from farm.store_keys import is_branch, is_folder_of_ours
from schemas.errors import StorageError

_KEY_PARTS: Final = 3  # ab/cd/abcd….png


@dataclass(frozen=True)
class StoredFile:
    """Something that lies in the store. ``is_file``: False for links, strangers' folders and the like."""

    key: str
    size_bytes: int
    is_file: bool = True


class StoredFiles(Protocol):
    """The files of one store."""

    #: without a slash at its end
    url: str

    def all(self) -> Iterator[StoredFile]:
        """Every file, a folder at a time: memory does not grow with the store. Raises StorageError."""

    def modified_at(self, key: str) -> datetime | None:
        """When the file was written; None where it is gone, or the store does not tell. Raises StorageError."""

    def remove(self, key: str, written_before: datetime) -> bool:
        """Removes the file, unless it was written anew since. Returns whether it did. Raises StorageError."""


def stored_files(images_url: str) -> StoredFiles:
    """Of the image store with this fsspec URL. Raises SettingsError for a URL that cannot be used."""
    url = ImageStore(images_url).url
    folder = local_path(url)
    return _LocalFiles(url, folder) if folder is not None else _RemoteFiles(url)


class _LocalFiles:
    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self._folder = folder

    def all(self) -> Iterator[StoredFile]:
        yield from self._below("")

    def _below(self, prefix: str) -> Iterator[StoredFile]:
        with _said(self.url):
            entries = _entries(self._folder / prefix)
        for entry in entries:
            key = prefix + entry.name
            if entry.is_dir(follow_symlinks=False) and is_folder_of_ours(key):
                yield from self._below(f"{key}/")
            elif (status := _status(entry)) is not None:
                yield StoredFile(key, status.st_size, stat.S_ISREG(status.st_mode))

    def modified_at(self, key: str) -> datetime | None:
        with _said(self.url):
            try:
                return _modified(self._folder / key)
            except FileNotFoundError:
                return None

    def remove(self, key: str, written_before: datetime) -> bool:
        """Aside first: what a worker writes meanwhile stands under the name and is not touched, and what it has written
        just before is seen by its time, and put back."""
        path = self._folder / key
        aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        with _said(self.url):
            if path.parent.resolve() != self._folder.resolve() / Path(key).parent:
                return False  # one of its folders is a link by now
            try:
                os.rename(path, aside)
            except FileNotFoundError:
                return False
            if _modified(aside) >= written_before:
                os.rename(aside, path)
                return False
            aside.unlink()
        return True


class _RemoteFiles:
    def __init__(self, url: str) -> None:
        self.url = url
        self._filesystem = filesystem(url)
        self._root = str(self._filesystem._strip_protocol(url)).rstrip("/")

    def all(self) -> Iterator[StoredFile]:
        for entry in self._listed(""):
            yield from self._of(entry)

    def _of(self, entry: dict[str, Any]) -> Iterator[StoredFile]:
        key = self._key(entry)
        if entry["type"] == "file":
            yield StoredFile(key, entry["size"] or 0)
        elif is_branch(key):
            for inner in self._listed(key):
                yield from self._of(inner)
        elif is_folder_of_ours(key):
            with _said(self.url):
                found = self._filesystem.find(f"{self._root}/{key}", detail=True)
                self._filesystem.invalidate_cache()  # else it remembers the whole store
            yield from (StoredFile(self._key(file), file["size"] or 0) for file in found.values())
        else:
            yield StoredFile(key, 0, is_file=False)

    def _listed(self, key: str) -> list[dict[str, Any]]:
        with _said(self.url):
            self._filesystem.invalidate_cache()
            try:
                entries = self._filesystem.ls(f"{self._root}/{key}".rstrip("/"), detail=True)
            except FileNotFoundError:
                return []
        return sorted((entry for entry in entries if self._key(entry) not in ("", key)), key=self._key)

    def _key(self, entry: dict[str, Any]) -> str:
        return str(entry["name"]).rstrip("/").removeprefix(self._root).lstrip("/")

    def modified_at(self, key: str) -> datetime | None:
        with _said(self.url):
            try:
                modified = self._filesystem.modified(f"{self._root}/{key}")
            except (FileNotFoundError, NotImplementedError):
                return None
        return modified.astimezone(UTC) if modified.tzinfo else modified.replace(tzinfo=UTC)  # type: ignore[no-any-return]

    def remove(self, key: str, written_before: datetime) -> bool:
        self._filesystem.invalidate_cache()
        modified = self.modified_at(key)
        if modified is None or modified >= written_before:
            return False
        with _said(self.url):
            self._filesystem.rm_file(f"{self._root}/{key}")
        return True


def read_at_most(uri: str, num_bytes: int) -> bytes:
    """The file's first bytes. Raises OSError: FileNotFoundError where there is no such file."""
    path = local_path(uri)
    if path is not None:
        return _local_bytes(path, num_bytes)
    with os_errors_alone(), filesystem(uri).open(uri, "rb") as stream:
        content: bytes = stream.read(num_bytes)
    return content


def _local_bytes(path: Path, num_bytes: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # else a pipe would be waited for
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("it is no file")
        content = os.read(descriptor, num_bytes)
        while len(content) < num_bytes and (more := os.read(descriptor, num_bytes - len(content))):
            content += more
        return content
    finally:
        os.close(descriptor)


def check_has_files(uri: str) -> None:
    """Whether the store that the image's URI names is there at all.

    Raises:
        StorageError: it is not, does not answer, or is empty, as the folder is that a disk should be mounted at.
    """
    url = uri.rsplit("/", _KEY_PARTS)[0]
    folder = local_path(url)
    try:
        if folder is None:
            remote = filesystem(url)
            remote.invalidate_cache()
            with os_errors_alone():
                found: Iterable[Any] = remote.ls(url, detail=False)
        else:
            found = _entries(folder)
    except FileNotFoundError:
        found = ()
    except OSError as error:
        raise StorageError(f"the image store {url} does not answer: {error.strerror or error}") from error
    if not any(True for _ in found):
        raise StorageError(
            f"the image store {url} is empty or not there, and the ledger records images in it: is its disk mounted?"
        )


def _entries(folder: Path) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        return []


def _status(entry: "os.DirEntry[str]") -> os.stat_result | None:
    try:
        return entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None  # a temporary file that has its name by now


def _modified(path: Path) -> datetime:
    return datetime.fromtimestamp(path.lstat().st_mtime, UTC)


@contextmanager
def _said(url: str) -> Iterator[None]:
    try:
        with os_errors_alone():
            yield
    except OSError as error:
        raise StorageError(f"cannot look through the image store {url}: {error.strerror or error}") from error
