"""Which shapes' code lies in the cache folder, for the next process: it takes them in at once, and asks nobody.

One small file beside the code, in ``shapes``, for all that the code depends on: who removes the code removes the list.
"""

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import torch
from pydantic import TypeAdapter, ValidationError

from farm.image_store import write_atomically
from schemas.digest import canonical_json, sha256_hex
from worker.compiled.compiling import compiled_code_folder
from worker.compiled.unet_shapes import UnetShape
from worker.environment import environment
from worker.loading.pipelines import LoadedPair

log: Final = logging.getLogger("nightshift.worker")

_SHAPES: Final = TypeAdapter(list[UnetShape])


class CompiledShapes:
    """``path``: of the file. Processes of one host share it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> set[UnetShape]:
        """Empty where there is no list, or none that can be read: then they are compiled again, from the cache."""
        try:
            return set(_SHAPES.validate_json(self._path.read_bytes()))
        except (OSError, ValidationError):
            return set()

    def add(self, shapes: Iterable[UnetShape]) -> None:
        """Where it cannot be written, the next process compiles them again."""
        try:
            write_atomically(self._path, _SHAPES.dump_json(sorted(self.read() | set(shapes))))
        except OSError as error:
            log.warning("which shapes are compiled cannot be kept in %s: %s", self._path, error)


def compiled_shapes(pair: LoadedPair) -> CompiledShapes:
    """Those of this pair on this device, with these libraries and options."""
    made_for = {
        "environment": json.loads(environment(pair).model_dump_json()),
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }
    return CompiledShapes(compiled_code_folder() / "shapes" / f"{sha256_hex(canonical_json(made_for))}.json")
