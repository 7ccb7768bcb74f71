"""Files that are no honest safetensors, each with the beginning of what is said of it."""

import io
import json
import pickle
import struct
import zipfile

from tests.unit.test_inputs import KOHYA


def safetensors(header: dict[str, object] | bytes, num_bytes: int = 4, length: int | None = None) -> bytes:
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(content) if length is None else length) + content + b"\0" * num_bytes


def tensor(begin: object = 0, end: object = 4, shape: object = (1,), dtype: object = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def _zip() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": 1}))
    return content.getvalue()


_FOREIGN = "is no safetensors file"
_TWO = f'{{"{KOHYA}": {{"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, '

LIARS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", _FOREIGN),
    "a few bytes": (b"\0\0\0", _FOREIGN),
    "a pickle": (pickle.dumps({"a": [1] * 100}), "is a pickle"),
    "a pickle of torch": (_zip(), "is a pickle"),
    "text": (b"version https://git-lfs.github.com/spec/v1\n", _FOREIGN),
    "a header longer than the file": (safetensors({KOHYA: tensor()}, length=5_000), _FOREIGN),
    "a header of 2 GB": (safetensors({KOHYA: tensor()}, length=2 << 30), _FOREIGN),
    "a header of 16 EiB": (safetensors({KOHYA: tensor()}, length=(1 << 64) - 1), _FOREIGN),
    "a header that ends early": (safetensors({KOHYA: tensor()}, length=20), _FOREIGN),
    "no JSON": (safetensors(b"{]"), _FOREIGN),
    "no UTF-8": (safetensors(b'{"\xff": 1}'), _FOREIGN),
    "deeply nested": (safetensors(b'{"a":' * 50_000), _FOREIGN),
    "deeply nested lists": (safetensors(b"[" * 100_000), _FOREIGN),
    "many digits": (safetensors(b'{"a": ' + b"9" * 10_000 + b"}"), _FOREIGN),
    "a list": (safetensors(b"[]"), _FOREIGN),
    "a tensor that is no object": (safetensors({KOHYA: [0, 4]}), _FOREIGN),
    "a tensor without a place": (safetensors({KOHYA: {"dtype": "F32", "shape": [1]}}), _FOREIGN),
    "a tensor that says more": (safetensors({KOHYA: {**tensor(), "code": "x"}}), _FOREIGN),
    "a place backwards": (safetensors({KOHYA: tensor(4, 0)}), _FOREIGN),
    "a place before the file": (safetensors({KOHYA: tensor(-4, 0)}), _FOREIGN),
    "places of text": (safetensors({KOHYA: tensor("0", "4")}), _FOREIGN),
    "half a byte": (safetensors({KOHYA: tensor(0, 4.0)}), _FOREIGN),
    "an endless place": (safetensors({KOHYA: tensor(0, 1 << 70)}), _FOREIGN),
    "an endless shape": (safetensors({KOHYA: tensor(shape=[1] * 100_000)}), _FOREIGN),
    "a negative shape": (safetensors({KOHYA: tensor(shape=[-1, -1])}), _FOREIGN),
    "metadata of numbers": (safetensors({"__metadata__": {"a": 1}, KOHYA: tensor()}), _FOREIGN),
    "a place beyond the file": (safetensors({KOHYA: tensor(0, 4_000, shape=[1_000])}), "has "),
    "cut off": (safetensors({KOHYA: tensor()})[:-1], "has "),
    "something behind": (safetensors({KOHYA: tensor()}) + b"#!/bin/sh", "has "),
    "tensors that overlap": (safetensors({KOHYA: tensor(), "b": tensor()}), "has a header that lies: tensors overlap"),
    "tensors that overlap in part": (
        safetensors({KOHYA: tensor(), "b": tensor(2, 6)}, num_bytes=6), "has a header that lies: tensors overlap",
    ),
    "a gap": (
        safetensors({KOHYA: tensor(), "b": tensor(8, 12)}, num_bytes=12), "has a header that lies: tensors overlap",
    ),
    "a gap in front": (safetensors({KOHYA: tensor(4, 8)}, num_bytes=8), "has a header that lies: tensors overlap"),
    "a larger shape": (safetensors({KOHYA: tensor(shape=[1 << 40])}), "has a header that lies: the place of"),
    "an unknown type": (safetensors({KOHYA: tensor(dtype="F32;")}), "has a header that lies: the place of"),
    "a name twice": (safetensors((_TWO + _TWO[1:-2] + "}").encode()), "has a header that lies: it names"),
    "a place twice": (
        safetensors(b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], "data_offsets": [0, 4]}}'),
        "has a header that lies: it names 'data_offsets' twice",
    ),
}  # fmt: skip
