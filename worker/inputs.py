"""What the specs of a forward pass name by content hash."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PassInputs:
    """What the specs of one forward pass name by content hash."""

    #: for each spec, its init image as uint8 RGB (height, width, 3); empty where the pass has none
    init_images: tuple[NDArray[np.uint8], ...] = ()
    #: sha256 → safetensors file, for every LoRA of the pass
    loras: Mapping[str, Path] = field(default_factory=lambda: MappingProxyType({}))


NO_INPUTS: Final = PassInputs()
