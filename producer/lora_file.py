"""What a LoRA's file says of itself before anybody loads it: the header of safetensors, read without torch.

The format: 8 bytes of length, little-endian; so many bytes of JSON, from a tensor's name to its type, shape and place;
the tensors. https://github.com/huggingface/safetensors
"""

import json
import re
from pathlib import Path
from typing import Any, BinaryIO, Final

_LENGTH_BYTES: Final = 8
#: SDXL's own LoRAs have a tenth of a megabyte for the tensors, and some more for the words they were trained on.
_MAX_HEADER_BYTES: Final = 32 << 20
_PICKLES: Final = (b"PK\x03\x04", b"\x80")
#: kohya's names, and diffusers'
_OF_SDXL: Final = re.compile(
    r"(?:lora_unet_|lora_te[12]?_|unet\.|text_encoder(?:_2)?\.).*"
    r"(?:lora_(?:down|up|A|B)|lora\.(?:down|up)|lora_linear_layer)\b.*"
)


def lora_flaw(path: Path) -> str | None:
    """Why the file is no LoRA for SDXL, as far as names and sizes tell; None where it may be one. Raises OSError."""
    with path.open("rb") as file:
        header = _header(file)
    if isinstance(header, str):
        return header
    names = [name for name in header if name != "__metadata__"]
    if not names:
        return "has no tensors"
    if not any(_OF_SDXL.fullmatch(name) for name in names):
        return f"is no LoRA for SDXL's UNet or text encoders; its first tensor is {names[0][:100]!r}"
    flaw = _size_flaw([header[name] for name in names], path)
    return flaw or _dora_flaw(names)


def _header(file: BinaryIO) -> dict[str, Any] | str:
    start = file.read(_LENGTH_BYTES)
    length = int.from_bytes(start, "little")
    content = file.read(length) if len(start) == _LENGTH_BYTES and length <= _MAX_HEADER_BYTES else b""
    try:
        header = json.loads(content)
    except (ValueError, RecursionError):
        header = None
    if isinstance(header, dict):
        return header
    return "is a pickle, which could run code; only safetensors are read" if start.startswith(_PICKLES) else _FOREIGN


_FOREIGN: Final = "is no safetensors file: its header cannot be read"


def _size_flaw(tensors: list[Any], path: Path) -> str | None:
    try:
        ends = [tensor["data_offsets"][1] for tensor in tensors]
    except (TypeError, LookupError):
        return _FOREIGN
    if not all(type(end) is int for end in ends):
        return _FOREIGN
    with path.open("rb") as file:
        start = _LENGTH_BYTES + int.from_bytes(file.read(_LENGTH_BYTES), "little")
    size_bytes, expected = path.stat().st_size, start + max(ends)
    return None if size_bytes == expected else f"has {size_bytes} bytes, and its header says {expected}: is it cut off?"


def _dora_flaw(names: list[str]) -> str | None:
    if any("dora_scale" in name for name in names):
        return "is a DoRA, of which diffusers would leave the magnitudes out"
    return None
