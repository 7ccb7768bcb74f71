"""The header of a safetensors file, read without torch, and held against the file before anybody reads its tensors.

The format: 8 bytes of length, little-endian; so many bytes of JSON, from a tensor's name to its type, shape and place;
the tensors, one behind the other without gaps. https://github.com/huggingface/safetensors
"""

import json
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, Final

_LENGTH_BYTES: Final = 8
#: SDXL's own LoRAs have a tenth of a megabyte for the tensors, and some more for the words they were trained on.
_MAX_HEADER_BYTES: Final = 32 << 20
_MAX_DIMENSIONS: Final = 16
_MAX_SIZE: Final = 1 << 48
_PICKLES: Final = (b"PK\x03\x04", b"\x80")
_METADATA: Final = "__metadata__"
_BITS: Final = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
_FOREIGN: Final = "is no safetensors file: its header cannot be read"


class _TwiceError(Exception):
    """An object says one name twice: readers may take either."""


def tensor_names(path: Path) -> list[str] | str:
    """The names of the file's tensors; or a flaw: it is a pickle, foreign, cut off, or its header contradicts itself.

    The flaw follows the file's name. Raises OSError.
    """
    with path.open("rb") as file:
        header = _header(file)
        start = file.tell()
    if isinstance(header, str):
        return header
    tensors = {name: tensor for name, tensor in header.items() if name != _METADATA}
    places = [_place(tensor) for tensor in tensors.values()]
    if None in places or not _is_metadata(header.get(_METADATA, {})):
        return _FOREIGN
    ordered = sorted(place for place in places if place is not None)
    size_bytes, expected = path.stat().st_size, start + (ordered[-1][1] if ordered else 0)
    if size_bytes != expected:
        return f"has {size_bytes} bytes, and its header says {expected}: is it cut off?"
    if any(one[1] != other[0] for one, other in pairwise([(0, 0), *ordered])):
        return "has a header that lies: tensors overlap, or there are gaps between them"
    lies = next((name for name, tensor in tensors.items() if not _fills_its_place(tensor)), None)
    if lies is not None:
        return f"has a header that lies: the place of {lies[:100]!r} is not as large as its type and shape"
    return list(tensors)


def _header(file: BinaryIO) -> dict[str, Any] | str:
    start = file.read(_LENGTH_BYTES)
    length = int.from_bytes(start, "little")
    content = file.read(length) if len(start) == _LENGTH_BYTES and length <= _MAX_HEADER_BYTES else b""
    try:
        header = json.loads(content, object_pairs_hook=_unique)
    except _TwiceError as error:
        return f"has a header that lies: it names {str(error)[:100]!r} twice"
    except (ValueError, RecursionError):
        header = None
    if isinstance(header, dict):
        return header
    return "is a pickle, which could run code; only safetensors are read" if start.startswith(_PICKLES) else _FOREIGN


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for name, value in pairs:
        if name in content:
            raise _TwiceError(name)
        content[name] = value
    return content


def _is_metadata(content: object) -> bool:
    return isinstance(content, dict) and all(isinstance(text, str) for text in content.values())


def _place(tensor: object) -> tuple[int, int] | None:
    match tensor:
        case {"dtype": str(), "shape": list(shape), "data_offsets": [begin, end], **others}:
            sizes = (*shape, begin, end)
            fits = len(shape) <= _MAX_DIMENSIONS and all(type(n) is int and 0 <= n <= _MAX_SIZE for n in sizes)
            return (begin, end) if fits and begin <= end and not others else None
        case _:
            return None


def _fills_its_place(tensor: dict[str, Any]) -> bool:
    begin, end = tensor["data_offsets"]
    return bool(8 * (end - begin) == prod(tensor["shape"]) * _BITS.get(tensor["dtype"], 0))
