"""Pictures made to do harm: refused in one sentence, in bounded memory, whatever they unfold to."""

import io
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.unit.test_inputs import picture, png_of_size

#: what each of the chunks below would unfold to; the picture that is taken may be 4096 x 4096
UNFOLDED_BYTES = 256 << 20
#: Pillow keeps 64 MB of text in all
ALLOWED_BYTES = 96 << 20


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


@cache
def deflated_zeros() -> bytes:
    deflate = zlib.compressobj(1)
    block = b"\0" * (1 << 20)
    return b"".join(deflate.compress(block) for _ in range(UNFOLDED_BYTES >> 20)) + deflate.flush()


def png_with(*chunks: bytes) -> bytes:
    """A small picture with these chunks before its pixels."""
    content = picture((64, 64))
    return content[:33] + b"".join(chunks) + content[33:]


def png_with_behind(*chunks: bytes) -> bytes:
    content = picture((64, 64))
    return content[:-12] + b"".join(chunks) + content[-12:]


def webp_of_size(width: int, height: int) -> bytes:
    """Its canvas says a size; its frame is small."""
    content = picture((64, 64), image_format="WEBP")
    canvas = (
        b"VP8X"
        + struct.pack("<I", 10)
        + b"\x10\0\0\0"
        + (width - 1).to_bytes(3, "little")
        + (height - 1).to_bytes(3, "little")
    )
    rest = canvas + content[12:]
    return b"RIFF" + struct.pack("<I", len(rest) + 4) + b"WEBP" + rest


def jpeg_of_size(width: int, height: int) -> bytes:
    content = bytearray(picture((64, 64), image_format="JPEG"))
    at = content.index(b"\xff\xc0")
    content[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(content)


def frames() -> list[Image.Image]:
    return [Image.new("RGB", (64, 64), n) for n in range(1, 200)]


def noise() -> bytes:
    stream = io.BytesIO()
    Image.effect_noise((512, 512), 99).save(stream, "PNG")
    return stream.getvalue()


BOMBS: dict[str, Callable[[], bytes]] = {
    "65,000 x 65,000 png": lambda: png_of_size(65_000, 65_000),
    "a png of 2 billion": lambda: png_of_size(2**31 - 1, 2**31 - 1),
    "a png of no width": lambda: png_of_size(0, 64),
    "a png of rows": lambda: png_of_size(4096, 4096)[:-12],
    "16,383 x 16,383 webp": lambda: webp_of_size(16_383, 16_383),
    "a webp of 16 million": lambda: webp_of_size(1 << 24, 1 << 24),
    "65,500 x 65,500 jpeg": lambda: jpeg_of_size(65_500, 65_500),
    "iCCP": lambda: png_with(chunk(b"iCCP", b"icc\0\0" + deflated_zeros())),
    "zTXt": lambda: png_with(chunk(b"zTXt", b"Comment\0\0" + deflated_zeros())),
    "iTXt": lambda: png_with(chunk(b"iTXt", b"Comment\0\1\0\0\0" + deflated_zeros())),
    "zTXt behind": lambda: png_with_behind(chunk(b"zTXt", b"Comment\0\0" + deflated_zeros())),
    "zTXt as EXIF": lambda: png_with(chunk(b"zTXt", b"Raw profile type exif\0\0" + deflated_zeros())),
    "a hundred zTXt": lambda: png_with(
        *[chunk(b"zTXt", b"Comment%d\0\0" % n + zlib.compress(b"\0" * (1 << 20))) for n in range(100)]
    ),
    "IDAT": lambda: png_with(chunk(b"IDAT", deflated_zeros())),
    "animated png": lambda: picture((64, 64), save_all=True, append_images=frames()),
    "animated webp": lambda: picture((64, 64), image_format="WEBP", save_all=True, append_images=frames()),
    "truncated png": lambda: noise()[:-20_000],
    "svg": lambda: b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    "svg bomb": lambda: b'<!DOCTYPE a [<!ENTITY b "' + b"x" * 999 + b'">]><svg>' + b"&b;" * 99_999 + b"</svg>",
    "psd": lambda: b"8BPS\0\1" + b"\0" * 6 + struct.pack(">HIIHH", 3, 30_000, 30_000, 8, 3) + b"\0" * 99,
    "eps": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n%%EOF\n",
    "pdf": lambda: b"%PDF-1.7\n" + b"\0" * 99,
    "tiff": lambda: b"II*\0\x08\0\0\0" + b"\0" * 99,
    "gif": lambda: picture((64, 64), image_format="GIF"),
    "bmp": lambda: picture((64, 64), image_format="BMP"),
    "ico": lambda: picture((64, 64), image_format="ICO"),
    "jpeg 2000": lambda: b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0" * 99,
    "a pickle": lambda: b"\x80\x04\x95" + b"\0" * 99,
    "gzip": lambda: b"\x1f\x8b\x08\0" + deflated_zeros()[:9_999],
    "nothing": lambda: b"",
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What one process said of all of them, in turn."""
    folder, contents = tmp_path_factory.mktemp("bombs"), {name: made() for name, made in BOMBS.items()}
    files = [folder / f"{number}.png" for number in range(len(contents))]
    for file, content in zip(files, contents.values(), strict=True):
        file.write_bytes(content)
    (folder / "good.png").write_bytes(picture((1024, 1024)))
    command = [sys.executable, "-m", "tests.unit.decoded_pictures", str(folder / "good.png"), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return dict(zip(["good", *contents], json.loads(done.stdout), strict=True))


#: what they carry beside the picture is not asked for, so it need not be a reason to refuse it
HARMLESS = ("IDAT",)


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_in_bounded_memory(told: dict[str, dict[str, Any]], name: str) -> None:
    assert told[name]["grown_bytes"] < ALLOWED_BYTES
    assert told[name]["reason"] is not None or name in HARMLESS
    if told[name]["reason"]:
        assert told[name]["reason"].isprintable()


def test_a_picture_is_taken(told: dict[str, dict[str, Any]]) -> None:
    assert told["good"]["reason"] is None


def test_memory_that_a_bomb_would_take_is_seen(tmp_path: Path) -> None:
    """So that the bounds above are ones."""
    (tmp_path / "large.png").write_bytes(picture((4096, 4096)))
    command = [sys.executable, "-m", "tests.unit.decoded_pictures", str(tmp_path / "large.png")]
    (found,) = json.loads(subprocess.run(command, capture_output=True, text=True, timeout=120).stdout)
    assert found["grown_bytes"] > ALLOWED_BYTES
