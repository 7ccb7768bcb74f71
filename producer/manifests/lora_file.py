"""What a LoRA's file says of itself before anybody loads it: the names of its tensors, read without torch."""

import re
from pathlib import Path
from typing import Final

from farm.safetensors_header import tensor_names

#: kohya's names, and diffusers'
_OF_SDXL: Final = re.compile(
    r"(?:lora_unet_|lora_te[12]?_|unet\.|text_encoder(?:_2)?\.).*"
    r"(?:lora_(?:down|up|A|B)|lora\.(?:down|up)|lora_linear_layer)\b.*"
)


def lora_flaw(path: Path) -> str | None:
    """Why the file is no LoRA for SDXL, as far as names and sizes tell; None where it may be one. Raises OSError."""
    names = tensor_names(path)
    if isinstance(names, str):
        return names
    if not names:
        return "has no tensors"
    if not any(_OF_SDXL.fullmatch(name) for name in names):
        return f"is no LoRA for SDXL's UNet or text encoders; its first tensor is {names[0][:100]!r}"
    return _dora_flaw(names)


def _dora_flaw(names: list[str]) -> str | None:
    if any("dora_scale" in name for name in names):
        return "is a DoRA, of which diffusers would leave the magnitudes out"
    return None
