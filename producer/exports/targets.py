"""Where an export goes: a folder of this machine, or any other fsspec URL. Nothing is ever there by half.

On a local disk a file is written under the temporary name ``.NAME.tmp`` beside it, synced and renamed; a name that is
not random is taken again by the next run, so a killed one leaves nothing behind. Elsewhere it is written to this
machine's temporary folder, and put.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

from farm.image_store import filesystem, local_path
from farm.store_errors import os_errors_alone
from farm.uploads import uploading
from schemas.errors import InputError, StorageError
from schemas.safe_url import require_no_secrets

#: of links: other file systems, ones without links, somebody else's files, files with too many links
_NO_LINK: Final = frozenset({errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS})
_BUFFER_BYTES: Final = 1 << 20
_CREDENTIALS: Final = "give them where the store's package looks for them (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)"


class Target(Protocol):
    """A folder. Keys are paths below it. Every method but ``held`` raises StorageError."""

    url: str

    @contextmanager
    def held(self) -> Iterator[None]:
        """For this process alone, where that can be had. Raises InputError where another one has it."""

    def sizes(self, folder: str) -> dict[str, int]:
        """name → bytes of the files in the folder; temporary ones are none."""

    def read(self, key: str) -> bytes | None:
        """The file's content; None where there is none."""

    @contextmanager
    def writing(self, key: str) -> Iterator[BinaryIO]:
        """A seekable stream; when the block ends well the file is there, whole."""

    def link(self, source: Path, key: str) -> bool:
        """A hard link to the file; False where that cannot be."""


def target(url: str) -> Target:
    """Raises SettingsError for a URL that carries a password, or of a scheme that is unknown or lacks its package."""
    require_no_secrets("--to", url, _CREDENTIALS)
    folder = local_path(url)
    return LocalTarget(folder) if folder is not None else RemoteTarget(url.rstrip("/"))


class LocalTarget:
    def __init__(self, folder: Path) -> None:
        self.url = str(folder)
        self.folder = folder

    @contextmanager
    def held(self) -> Iterator[None]:
        with _said(self.url):
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(f"another export into {self.url} is under way; wait for it, or stop it") from None
            yield
        finally:
            os.close(descriptor)

    def sizes(self, folder: str) -> dict[str, int]:
        with _said(self.url):
            try:
                with os.scandir(self.folder / folder) as entries:
                    return {entry.name: _size_of(entry) for entry in entries if not _is_temporary(entry.name)}
            except FileNotFoundError:
                return {}

    def read(self, key: str) -> bytes | None:
        with _said(self.url):
            try:
                return (self.folder / key).read_bytes()
            except FileNotFoundError:
                return None

    @contextmanager
    def writing(self, key: str) -> Iterator[BinaryIO]:
        path = self.folder / key
        temporary = path.with_name(f".{path.name}.tmp")
        with _said(self.url):
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb", buffering=_BUFFER_BYTES) as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.rename(temporary, path)

    def link(self, source: Path, key: str) -> bool:
        path = self.folder / key
        with _said(self.url):
            try:
                self._link(source, path)
            except OSError as error:
                if error.errno in _NO_LINK:
                    return False
                raise
        return True

    def _link(self, source: Path, path: Path) -> None:
        try:
            os.link(source, path)
        except FileNotFoundError:  # its folder; or the source, and then once more
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(source, path)
        except FileExistsError:  # in the place of another file, which is there until then
            temporary = path.with_name(f".{path.name}.tmp")
            temporary.unlink(missing_ok=True)
            os.link(source, temporary)
            os.rename(temporary, path)
            temporary.unlink(missing_ok=True)  # a rename onto a link to the same file does nothing


class RemoteTarget:
    def __init__(self, url: str) -> None:
        self.url = url
        self._filesystem: Any = filesystem(url, "--to")
        self._root = str(self._filesystem._strip_protocol(url)).rstrip("/")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nothing: two exports of the same put the same bytes."""
        yield

    def sizes(self, folder: str) -> dict[str, int]:
        path = f"{self._root}/{folder}".rstrip("/")
        with _said(self.url):
            self._filesystem.invalidate_cache()
            try:
                entries = self._filesystem.ls(path, detail=True)
            except FileNotFoundError:
                return {}
        names = {str(entry["name"]).rstrip("/").removeprefix(f"{path}/"): int(entry["size"] or 0) for entry in entries}
        return {name: size for name, size in names.items() if name and name != path}

    def read(self, key: str) -> bytes | None:
        with _said(self.url):
            self._filesystem.invalidate_cache()
            try:
                content: bytes = self._filesystem.cat_file(f"{self._root}/{key}")
            except FileNotFoundError:
                return None
        return content

    @contextmanager
    def writing(self, key: str) -> Iterator[BinaryIO]:
        with _said(self.url), uploading(self._filesystem, f"{self._root}/{key}") as stream:
            yield stream

    def link(self, source: Path, key: str) -> bool:
        return False


def put(place: Target, key: str, content: bytes) -> None:
    """A small file. Raises StorageError."""
    with place.writing(key) as stream:
        stream.write(content)


def _size_of(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except FileNotFoundError:  # a symbolic link that leads nowhere is somebody's all the same
        return entry.stat(follow_symlinks=False).st_size


def _is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith(".tmp")


@contextmanager
def _said(url: str) -> Iterator[None]:
    try:
        with os_errors_alone():
            yield
    except OSError as error:
        raise StorageError(f"cannot export to {url}: {error.strerror or error}") from error
