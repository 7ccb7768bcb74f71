"""Inputs of jobs in the image store, named by content: ``inputs/ab/cd/abcd….safetensors``.

A spec names its init image and its LoRAs by the sha256 of their files. The producer stores them before the batch is
opened, so workers on other machines need the store alone. A rendered image (``ab/cd/abcd….png``) can be an init image
too, and is not stored twice.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from farm.image_store import ImageStore, filesystem, local_path, writing_atomically
from farm.init_image import SUFFIXES
from schemas.errors import InputFileError, StorageError

_FOLDER: Final = "inputs"
_LORA_SUFFIX: Final = "safetensors"
_IMAGE_KEY: Final = re.compile(
    rf"(?:{_FOLDER}/)?([0-9a-f]{{2}})/([0-9a-f]{{2}})/(\1\2[0-9a-f]{{60}})\.(?:{'|'.join(SUFFIXES)})"
)
_BLOCK_BYTES: Final = 1 << 20


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

    def put_image(self, content: bytes, sha256: str, suffix: str) -> None:
        """Stores a picture under its content's name. Raises StorageError."""
        self._inputs.put(content, sha256, suffix)

    def put_lora(self, path: Path, sha256: str) -> None:
        """Stores a copy of the file, a block at a time, whole or not at all.

        Raises:
            InputFileError: the file's bytes are not, or no longer, those of the sha256.
            StorageError: the store refuses, or the file cannot be read.
        """
        uri = f"{self.url}/{_FOLDER}/{_place(sha256)}.{_LORA_SUFFIX}"
        target = local_path(uri)
        try:
            with path.open("rb") as source:
                if target is not None:
                    copy_whole(source, target, sha256)
                else:
                    self._upload(source, uri, sha256)
        except OSError as error:
            raise StorageError(f"cannot store {path.name} below {self.url}: {error.strerror or error}") from error

    def download(self, uri: str, path: Path, sha256: str) -> None:
        """Copies what lies behind the URI into a local file, whole or not at all. Raises as ``put_lora``."""
        try:
            with filesystem(self.url).open(uri, "rb") as source:
                copy_whole(source, path, sha256)
        except OSError as error:
            raise StorageError(f"cannot copy {uri} to {path}: {error.strerror or error}") from error

    def _upload(self, source: BinaryIO, uri: str, sha256: str) -> None:
        remote = filesystem(self.url)
        try:
            with remote.open(uri, "wb") as target:
                _copy(source, target, sha256)
        except BaseException:  # fsspec stores what was written so far
            remote.rm_file(uri)
            raise

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
            return bool(filesystem(self.url).info(uri)["type"] == "file")  # fsspec's exists() is False for any error
        except FileNotFoundError:
            return False


def copy_whole(source: BinaryIO, path: Path, sha256: str) -> None:
    """Raises InputFileError where the bytes are not those of the sha256; then, and after OSError, nothing remains."""
    with writing_atomically(path) as target:
        _copy(source, target, sha256)


def _copy(source: BinaryIO, target: BinaryIO, sha256: str) -> None:
    digest = hashlib.sha256()
    while block := source.read(_BLOCK_BYTES):
        digest.update(block)
        target.write(block)
    if digest.hexdigest() != sha256:
        raise InputFileError(f"the bytes are not those of sha256 {sha256}")


def _place(sha256: str) -> str:
    return f"{sha256[:2]}/{sha256[2:4]}/{sha256}"
