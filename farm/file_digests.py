"""sha256 of files, remembered. Writes ``<cache>/file-digests/<key>``, one small file for each file hashed."""

import hashlib
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
    try:
        return remembered.read_text()
    except FileNotFoundError:  # asked for by reading: the cache may be emptied at any time
        pass
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    write_atomically(remembered, digest.encode())
    return digest
