"""The bytes of a recorded image, a block at a time, from wherever the store is. Pure but for the file that it reads."""

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, BinaryIO, Final

from farm.image_store import filesystem, local_path
from farm.store_errors import os_errors_alone
from farm.store_keys import store_key
from producer.questions.job_results import JobResult
from schemas.errors import NotFoundError, StorageError

#: the suffix of the key → what browsers are told, whatever is in the file
MEDIA_TYPES: Final = MappingProxyType({"png": "image/png", "webp": "image/webp", "jpg": "image/jpeg"})

_BLOCK_BYTES: Final = 1 << 18
_KEY_PARTS: Final = 3
_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


@dataclass(frozen=True)
class Span:
    """Bytes from ``start`` up to ``end``, which is not among them."""

    start: int
    end: int


def wanted_span(header: str | None, size: int) -> Span | None:
    """What a ``Range`` asks for; the whole where it asks for nothing, or in a way that we do not answer (RFC 9110 lets
    us); None where nothing of it is there."""
    found = _RANGE.fullmatch(header or "")
    if found is None or found[1] == found[2] == "":
        return Span(0, size)
    if not found[1]:
        return Span(max(0, size - int(found[2])), size) if int(found[2]) else None
    start, end = int(found[1]), min(int(found[2]) + 1 if found[2] else size, size)
    if found[2] and int(found[2]) < start:
        return Span(0, size)
    return Span(start, end) if start < size else None


def media_type_of(uri: str, sha256: str) -> str:
    """What an image's URI says that it is. Raises StorageError for one that no image store of ours has."""
    key = "/".join(uri.rsplit("/", _KEY_PARTS)[1:])
    found = store_key(key)
    if found.kind != "image" or found.sha256 != sha256:
        raise StorageError("the ledger names a file that is no image of an image store")
    return MEDIA_TYPES[key.rpartition(".")[2]]


def opened_image(job: JobResult) -> BinaryIO:
    """The file, to be closed.

    Raises:
        NotFoundError: the job has no image.
        StorageError: the store does not give it, or has another file in its place.
    """
    if job.uri is None or job.size_bytes is None:
        raise NotFoundError(f"job {job.name} is {job.state} and has no image")
    try:
        stream = _opened(job.uri)
        size = stream.seek(0, 2)
    except OSError as error:
        raise StorageError(f"cannot read the image of job {job.name}: {error.strerror or error}") from error
    if size != job.size_bytes:
        stream.close()
        raise StorageError(f"what is stored is no longer the file that was recorded for job {job.name}")
    return stream


def whole_image(job: JobResult) -> bytes:
    """All of the file. Raises as ``opened_image`` does, and OSError."""
    with closing(opened_image(job)) as stream:
        stream.seek(0)
        return stream.read()


def blocks(stream: BinaryIO, span: Span) -> Iterator[bytes]:
    """Closes the stream at the end, also where nobody reads on."""
    with closing(stream):
        stream.seek(span.start)
        left = span.end - span.start
        while left and (block := stream.read(min(_BLOCK_BYTES, left))):
            left -= len(block)
            yield block


def _opened(uri: str) -> BinaryIO:
    path = local_path(uri)
    if path is not None:
        return path.open("rb")
    with os_errors_alone():
        remote: Any = filesystem(uri).open(uri, "rb")
    return remote  # type: ignore[no-any-return]
