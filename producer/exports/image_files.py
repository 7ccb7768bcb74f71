"""An image's file as the ledger records it, or what is wrong with it."""

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from farm.stored_files import check_has_files, read_at_most
from producer.exports.done_jobs import DoneJob
from producer.upkeep.finding import RESTORE_FILE
from schemas.errors import StorageError


@dataclass(frozen=True)
class Flaw:
    """Of one file. ``code``: as `nightshift verify` has it."""

    code: str
    sentence: str

    def error_of(self, job: DoneJob) -> StorageError:
        return StorageError(f"job {job.name}: {job.row.uri} {self.sentence}; --skip-broken leaves it out")


def recorded_bytes(job: DoneJob) -> bytes | Flaw:
    """The file, if its size and sha256 are those of the row.

    Raises:
        StorageError: the whole store is not there, or does not answer.
    """
    uri, size = job.row.uri, job.row.size_bytes
    try:
        content = read_at_most(uri, size + 1)
    except OSError as error:
        return _absent(uri, error)
    if len(content) != size:
        return _of_another_size(size)
    if hashlib.sha256(content).hexdigest() != job.row.sha256:
        return Flaw("sha256", f"has other bytes than were recorded; {RESTORE_FILE}")
    return content


def may_be_linked(job: DoneJob, path: Path) -> bool | Flaw:
    """Of a local file that is not read: whether it is of the recorded size; False where it is a symbolic link. Raises
    StorageError as ``recorded_bytes``."""
    try:
        status = os.lstat(path)
    except OSError as error:
        return _absent(job.row.uri, error)
    if stat.S_ISLNK(status.st_mode):
        return False
    return True if status.st_size == job.row.size_bytes else _of_another_size(job.row.size_bytes)


def _absent(uri: str, error: OSError) -> Flaw:
    check_has_files(uri)
    if isinstance(error, FileNotFoundError):
        return Flaw("missing", f"is missing; {RESTORE_FILE}")
    return Flaw("unreadable", f"cannot be read: {error.strerror or error}")


def _of_another_size(size: int) -> Flaw:
    return Flaw("size", f"has not the {size:,} bytes that were recorded; {RESTORE_FILE}")
