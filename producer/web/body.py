"""A request's body: bounded, hashed, and on a disk where it may be large. Files: one in the temporary folder, while it
is worked on."""

import hashlib
import re
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from anyio.to_thread import run_sync
from fastapi import Request
from starlette.requests import ClientDisconnect

from schemas.errors import RequestError, StorageError

_BLOCK_BYTES: Final = 1 << 20
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]")
_NAME_CHARACTERS: Final = 100


@dataclass(frozen=True)
class Upload:
    """``path``: where the bytes are; its name ends as the sender's file does."""

    path: Path
    sha256: str


async def body_in_memory(request: Request, num_bytes: int) -> bytes:
    """Raises RequestError for a larger one."""
    content = bytearray()
    async for block in _blocks(request, num_bytes):
        content += block
    return bytes(content)


@asynccontextmanager
async def uploaded(request: Request, file_name: str, num_bytes: int) -> AsyncIterator[Upload]:
    """The body as a file, until the context ends. A megabyte of it is in memory at a time.

    Raises:
        RequestError: a larger one, or the sender went away.
        StorageError: the disk is full.
    """
    with tempfile.TemporaryDirectory(prefix="nightshift-upload-") as folder:
        path = Path(folder) / _safe(file_name)
        digest = hashlib.sha256()
        try:
            with path.open("wb") as file:
                async for block in _blocks(request, num_bytes):
                    await run_sync(file.write, block)
                    await run_sync(digest.update, block)
        except OSError as error:
            raise StorageError(f"cannot keep the upload: {error.strerror or error}") from error
        yield Upload(path, digest.hexdigest())


async def _blocks(request: Request, num_bytes: int) -> AsyncIterator[bytes]:
    told = request.headers.get("content-length", "")
    if told.isdigit() and int(told[:20]) > num_bytes:
        raise _too_large(num_bytes)
    seen, block = 0, bytearray()
    try:
        async for piece in request.stream():
            seen += len(piece)
            if seen > num_bytes:
                raise _too_large(num_bytes)
            block += piece
            if len(block) >= _BLOCK_BYTES:
                yield bytes(block)
                block.clear()
    except ClientDisconnect:
        raise RequestError(400, "disconnected", "the body ended early") from None
    if block:
        yield bytes(block)


def _too_large(num_bytes: int) -> RequestError:
    return RequestError(413, "too_large", f"the body has more than {num_bytes:,} bytes, which are the most here")


def _safe(file_name: str) -> str:
    """A name without any way out of its folder, with the suffixes that tell what is in it."""
    name = _UNSAFE.sub("_", PurePosixPath(file_name).name)[-_NAME_CHARACTERS:]
    return name if name.strip(".") else "manifest"
