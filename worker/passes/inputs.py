"""Fetches what the specs of a forward pass name by content hash, beside the device.

Reads the image store; writes ``<cache>/inputs/<sha256>.safetensors`` where that is no folder of this machine. All
worker processes share it.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from farm.file_digests import file_sha256
from farm.image_store import local_path
from farm.init_image import decoded_picture
from farm.inputs import InputStore, reading_one_file
from schemas.errors import InputFileError, StorageError
from schemas.loras import Lora
from schemas.spec import JobSpec

#: A pack often starts from one picture; of 1024 x 1024 pixels one takes 3 MB.
_REMEMBERED_IMAGES: Final = 8


@dataclass(frozen=True)
class PassInputs:
    """What the specs of one forward pass name by content hash."""

    #: for each spec, its init image as uint8 RGB (height, width, 3); empty where the pass has none
    init_images: tuple[NDArray[np.uint8], ...] = ()
    #: sha256 → safetensors file, for every LoRA of the pass
    loras: Mapping[str, Path] = field(default_factory=lambda: MappingProxyType({}))


NO_INPUTS: Final = PassInputs()


def joined(inputs: Iterable[PassInputs]) -> PassInputs:
    """The inputs of a pass, from those of its specs in their order."""
    images: list[NDArray[np.uint8]] = []
    loras: dict[str, Path] = {}
    for one in inputs:
        images += one.init_images
        loras |= one.loras
    return PassInputs(tuple(images), MappingProxyType(loras))


class InputFetcher:
    """Any thread may fetch."""

    def __init__(self, store: InputStore, cache: Path) -> None:
        self._store = store
        self._cache = cache
        self._init_image: Callable[[str], NDArray[np.uint8]] = lru_cache(_REMEMBERED_IMAGES)(self._fetch_init_image)

    def fetch(self, spec: JobSpec) -> PassInputs:
        """The inputs of one spec.

        Raises:
            InputFileError: one is missing, may not be read, or is not what its hash says.
            StorageError: the image store does not answer, or this machine's disk is full.
        """
        if spec.init_image is None and not spec.loras:
            return NO_INPUTS
        images = () if spec.init_image is None else (self._init_image(spec.init_image),)
        return PassInputs(images, {lora.sha256: self._lora_file(lora) for lora in spec.loras})

    def _fetch_init_image(self, sha256: str) -> NDArray[np.uint8]:
        uri = self._store.find_image(sha256)
        if uri is None:
            raise InputFileError(f"init_image {sha256} is not in the image store {self._store.url}")
        content = self._store.read_image(uri)
        if hashlib.sha256(content).hexdigest() != sha256:
            raise InputFileError(f"{uri} is broken: its bytes are not those of its name")
        try:
            pixels = np.asarray(decoded_picture(content))
        except InputFileError as error:
            raise InputFileError(f"{uri} {error}") from None
        pixels.flags.writeable = False  # several passes may have it
        return pixels

    def _lora_file(self, lora: Lora) -> Path:
        uri = self._store.find_lora(lora.sha256)
        if uri is None:
            raise InputFileError(f"LoRA {lora.name!r} ({lora.sha256}) is not in the image store {self._store.url}")
        path = local_path(uri)
        return self._downloaded(uri, lora) if path is None else self._checked(path, lora)

    def _checked(self, path: Path, lora: Lora) -> Path:
        try:
            with reading_one_file():
                path.open("rb").close()
            sha256 = file_sha256(path, self._cache)
        except InputFileError as error:
            raise InputFileError(f"{path} of LoRA {lora.name!r} cannot be used: {error}") from None
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
        if sha256 != lora.sha256:
            raise InputFileError(f"{path} of LoRA {lora.name!r} is broken: its bytes are not those of its name")
        return path

    def _downloaded(self, uri: str, lora: Lora) -> Path:
        path = self._cache / "inputs" / f"{lora.sha256}.safetensors"
        if not path.exists():
            try:
                self._store.download(uri, path, lora.sha256)
            except InputFileError as error:
                raise InputFileError(f"{uri} of LoRA {lora.name!r} cannot be used: {error}") from None
        return path
