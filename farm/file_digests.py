"""sha256 of files, remembered. Writes ``<cache>/file-digests/<key>``, one small file for each file hashed, and a lock
file beside it: of the processes that start together on a host, one reads the file.
"""

import fcntl
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from farm.image_store import write_atomically
from schemas.digest import canonical_json, sha256_hex


def file_sha256(path: Path, cache: Path) -> str:
    """sha256 of the file's bytes; from the cache while its path, size and modification time are the same.

    Raises OSError.
    """
    status = path.stat()
    key = {"path": str(path.resolve()), "size_bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
    remembered = cache / "file-digests" / sha256_hex(canonical_json(key))
    digest = _remembered(remembered)
    if digest is not None:
        return digest
    with _alone(remembered.with_name(f"{remembered.name}.lock")):
        return _remembered(remembered) or _hashed(path, remembered)


def _remembered(file: Path) -> str | None:
    try:
        return file.read_text()
    except FileNotFoundError:  # asked for by reading: the cache may be emptied at any time
        return None


def _hashed(path: Path, remembered: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    write_atomically(remembered, digest.encode())
    return digest


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # given back when the file closes, or its process dies
        yield
