"""What a farm could do without: files of the image store that nothing records, lists of batches that are gone, and a
batch that somebody wants to be rid of. Writes: the image store, ``invalid`` of the home folder, the ledger; all of that
only where ``removes`` says so.
"""

import re
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from farm import removal
from farm.database import Database
from farm.leases import ledger_time
from farm.store_keys import store_key
from farm.stored_files import stored_files
from producer.questions.queries import BatchSummary
from producer.upkeep import verified_rows
from producer.upkeep.finding import Finding
from producer.upkeep.orphans import OLD, NamedInputs, OrphanCounts, Orphans
from schemas.errors import StorageError
from schemas.settings import Settings

_LIST: Final = re.compile(r"batch-([1-9][0-9]{0,9})\.txt")
_CHUNK: Final = 1_000


@dataclass
class GarbageCounts:
    """``num_files``: that can be removed, or were. ``num_kept``: files of a removed batch that stay, for they are
    younger than a day, in another store, or may be some job's input."""

    num_files: int = 0
    num_bytes: int = 0
    num_removed: int = 0
    removed_bytes: int = 0
    num_jobs: int = 0
    num_kept: int = 0
    orphans: OrphanCounts = field(default_factory=OrphanCounts)


class Garbage:
    """One look through a farm. ``removes``: what is found goes, too."""

    def __init__(self, database: Database, settings: Settings, *, removes: bool) -> None:
        self._database = database
        self._settings = settings
        self._removes = removes
        self._now = ledger_time(database)
        self._files = stored_files(settings.images_url)
        self.counts = GarbageCounts()

    def unrecorded(self) -> Iterator[Finding]:
        """Each thing that no row is for. What ``removes`` took away is counted alone.

        Raises:
            StorageError: the store cannot be looked through, or refuses a removal.
        """
        orphans = Orphans(self._database, self._files, self._now, clean=self._removes, option="--yes")
        yield from orphans.findings()
        counts = self.counts.orphans = orphans.counts
        self._count(counts.num_orphans, counts.orphan_bytes, counts.num_removed, counts.removed_bytes)
        yield from self._lists()

    def of_batch(self, batch: BatchSummary) -> Iterator[Finding]:
        """The batch with everything that only it has.

        Raises:
            InputError: it has not ended, or another batch is being submitted.
            StorageError: the store refuses a removal; what went before is gone, and the next time goes on.
        """
        if not self._removes:
            yield self._told(batch)
            return
        num_jobs = 1
        with closing(NamedInputs(self._database)) as named:
            while num_jobs:
                num_jobs, uris = removal.remove_jobs(self._database, batch.id, _CHUNK)
                self.counts.num_jobs += num_jobs
                self._remove_files(uris, named)
        if not removal.remove_batch(self._database, batch.id):
            yield Finding(f"batch {batch.id}", "kept", _SHELL, is_note=True)
        else:
            with suppress(OSError):
                self._list_path(batch.id).unlink(missing_ok=True)

    def _told(self, batch: BatchSummary) -> Finding:
        num_images, num_bytes = removal.images_of_batch_alone(self._database, batch.id)
        self._count(num_images, num_bytes)
        self.counts.num_jobs += batch.num_jobs
        shared = batch.num_done - num_images
        stays = f"; {shared:,} more are shared with other jobs, those stay with them" if shared > 0 else ""
        sentence = f"{batch.num_jobs:,} jobs, and {num_images:,} images that no other batch has ({num_bytes:,} bytes)"
        return Finding(f"batch {batch.id}", "batch", f"{sentence}{stays}; --yes removes them")

    def _remove_files(self, uris: list[str], named: NamedInputs) -> None:
        """As with every file of the store: what is younger than a day may be somebody's who has no row for it yet."""
        recorded = verified_rows.recorded(self._database, uris)
        for uri in uris:
            key = uri.removeprefix(f"{self._files.url}/")
            stays = key == uri or uri in recorded or store_key(key).sha256 in named
            if stays or self._may_be_named() or not self._files.remove(key, self._now - OLD):
                self.counts.num_kept += 1
            else:
                self._count(1, 0, 1)

    def _may_be_named(self) -> bool:
        """A batch that is submitted now may name a picture of the store as its input."""
        return verified_rows.is_submitting(self._database, self._now)

    def _lists(self) -> Iterator[Finding]:
        """Of invalid rows, of batches that came to nothing. A number that the ledger has not reached is another's."""
        batch_ids = set(verified_rows.batch_ids(self._database))
        last = max(batch_ids, default=0)
        for path, size_bytes in _old_lists(self._list_path(1).parent, self._now - OLD):
            number = int(path.name.removeprefix("batch-").removesuffix(".txt"))
            if number in batch_ids or number > last:
                continue
            self._count(1, size_bytes)
            if self._removes:
                self._unlink(path, size_bytes)
            else:
                sentence = f"lists invalid rows of a batch that is gone ({size_bytes:,} bytes); --yes removes it"
                yield Finding(f"file {path}", "invalid_rows", sentence)

    def _unlink(self, path: Path, size_bytes: int) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"cannot remove {path}: {error.strerror or error}") from error
        self._count(0, 0, 1, size_bytes)

    def _list_path(self, batch_id: int) -> Path:
        return self._settings.home / "invalid" / f"batch-{batch_id}.txt"

    def _count(self, num_files: int, num_bytes: int, num_removed: int = 0, removed_bytes: int = 0) -> None:
        self.counts.num_files += num_files
        self.counts.num_bytes += num_bytes
        self.counts.num_removed += num_removed
        self.counts.removed_bytes += removed_bytes


_SHELL: Final = "stays as a row without jobs: other batches are linked to images that its packs made"


def _old_lists(folder: Path, old: datetime) -> Iterator[tuple[Path, int]]:
    try:
        paths = sorted(path for path in folder.iterdir() if _LIST.fullmatch(path.name) and not path.is_symlink())
        for path in paths:
            status = path.stat()
            if datetime.fromtimestamp(status.st_mtime, UTC) < old:
                yield path, status.st_size
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"cannot look through {folder}: {error.strerror or error}") from error
