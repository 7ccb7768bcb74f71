"""Inputs of jobs in the image store, named by content: ``inputs/ab/cd/abcd….safetensors``.

A spec names its init image and its LoRAs by the sha256 of their files. The producer stores them before the batch is
opened, so workers on other machines need the store alone. A rendered image (``ab/cd/abcd….png``) can be an init image
too, and is not stored twice.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from farm.image_store import ImageStore, filesystem, local_path, read_image, writing_atomically
from farm.init_image import SUFFIXES
from farm.store_errors import os_errors_alone
from farm.uploads import uploading
from schemas.errors import InputFileError, StorageError

_FOLDER: Final = "inputs"
_LORA_SUFFIX: Final = "safetensors"
_IMAGE_KEY: Final = re.compile(
    rf"(?:{_FOLDER}/)?([0-9a-f]{{2}})/([0-9a-f]{{2}})/(\1\2[0-9a-f]{{60}})\.(?:{'|'.join(SUFFIXES)})"
)
_BLOCK_BYTES: Final = 1 << 20
#: what a system says of one file, and would say again; a store that refuses everything refuses to look for it at first
_OF_ONE_FILE: Final = (PermissionError, IsADirectoryError)


class InputStore:
    """Init images and LoRAs of one image store. Not thread-bound."""

    def __init__(self, images_url: str) -> None:
        self.url = ImageStore(images_url).url
        self._inputs = ImageStore(f"{self.url}/{_FOLDER}")

    def image_sha256(self, uri: str) -> str | None:
        """The sha256 in the URI of an image of this store; None for any other URI."""
        if not uri.startswith(f"{self.url}/"):
            return None
        found = _IMAGE_KEY.fullmatch(uri.removeprefix(f"{self.url}/"))
        return found[3] if found else None

    def find_image(self, sha256: str, suffixes: Sequence[str] = SUFFIXES) -> str | None:
        """The URI of a picture that was given or rendered; None where there is none. Raises StorageError."""
        places = (f"{folder}{_place(sha256)}.{suffix}" for folder in (f"{_FOLDER}/", "") for suffix in suffixes)
        return self._first(places)

    def find_lora(self, sha256: str) -> str | None:
        """The URI of a LoRA's file; None where there is none. Raises StorageError."""
        return self._first([f"{_FOLDER}/{_place(sha256)}.{_LORA_SUFFIX}"])

    def read_image(self, uri: str) -> bytes:
        """The bytes of a picture.

        Raises:
            InputFileError: this file cannot be read, and will not be at a second try.
            StorageError: the store does not answer.
        """
        try:
            return read_image(uri)
        except StorageError as error:
            if isinstance(error.__cause__, _OF_ONE_FILE):
                raise InputFileError(str(error)) from None
            raise

    def put_image(self, content: bytes, sha256: str, suffix: str) -> None:
        """Stores a picture under its content's name. Raises StorageError."""
        self._inputs.put(content, sha256, suffix)

    def put_lora(self, path: Path, sha256: str) -> None:
        """Stores a copy of the file, a block at a time, whole or not at all.

        Raises:
            InputFileError: the file's bytes are not, or no longer, those of the sha256; or it may not be read.
            StorageError: the store refuses, or a disk does.
        """
        uri = f"{self.url}/{_FOLDER}/{_place(sha256)}.{_LORA_SUFFIX}"
        target = local_path(uri)
        try:
            with reading_one_file():
                source = path.open("rb")
            with source:
                if target is not None:
                    copy_whole(source, target, sha256)
                else:
                    self._upload(source, uri, sha256)
        except OSError as error:
            raise StorageError(f"cannot store {path.name} below {self.url}: {error.strerror or error}") from error

    def download(self, uri: str, path: Path, sha256: str) -> None:
        """Copies what lies behind the URI into a local file, whole or not at all. Raises as ``put_lora``."""
        try:
            with reading_one_file(), os_errors_alone():
                source = filesystem(self.url).open(uri, "rb")
            with source:
                copy_whole(source, path, sha256)
        except OSError as error:
            raise StorageError(f"cannot copy {uri} to {path}: {error.strerror or error}") from error

    def _upload(self, source: BinaryIO, uri: str, sha256: str) -> None:
        with uploading(filesystem(self.url), uri) as target:
            _copy(source, target, sha256)

    def _first(self, keys: Iterable[str]) -> str | None:
        try:
            return next((uri for key in keys if self._has(uri := f"{self.url}/{key}")), None)
        except OSError as error:
            raise StorageError(f"cannot look into {self.url}: {error.strerror or error}") from error

    def _has(self, uri: str) -> bool:
        path = local_path(uri)
        if path is not None:
            return path.is_file()
        try:
            with os_errors_alone():
                return bool(filesystem(self.url).info(uri)["type"] == "file")  # fsspec's exists(): False for any error
        except FileNotFoundError:
            return False


@contextmanager
def reading_one_file() -> Iterator[None]:
    """Around what opens or reads one input, and does nothing else: a refusal becomes an InputFileError.

    Other errors pass, for they may go away: a disk that does not answer, a file that is being replaced.
    """
    try:
        yield
    except _OF_ONE_FILE as error:
        raise InputFileError(f"it cannot be read: {error.strerror or error}") from None


def copy_whole(source: BinaryIO, path: Path, sha256: str) -> None:
    """Raises InputFileError where the bytes are not those of the sha256; then, and after OSError, nothing remains."""
    with writing_atomically(path) as target:
        _copy(source, target, sha256)


def _copy(source: BinaryIO, target: BinaryIO, sha256: str) -> None:
    digest = hashlib.sha256()
    while block := _next_block(source):
        digest.update(block)
        target.write(block)
    if digest.hexdigest() != sha256:
        raise InputFileError(f"the bytes are not those of sha256 {sha256}")


def _next_block(source: BinaryIO) -> bytes:
    with reading_one_file(), os_errors_alone():
        return source.read(_BLOCK_BYTES)


def _place(sha256: str) -> str:
    return f"{sha256[:2]}/{sha256[2:4]}/{sha256}"
