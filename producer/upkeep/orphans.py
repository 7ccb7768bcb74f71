"""Files of the image store that no row is for: who they are, and their removal. Writes: the image store, ``remove``.

A file comes before its row, so what is younger than a day may still get one.
"""

import re
import sqlite3
from collections.abc import Container, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Final, Literal

from farm.database import Database
from farm.store_keys import store_key
from farm.stored_files import StoredFile, StoredFiles
from producer.upkeep import verified_rows
from producer.upkeep.finding import Finding

OLD: Final = timedelta(days=1)
#: by what the key says that the file is
_WHY: Final = {
    "image": "belongs to no job",
    "input": "is an input that no job names",
    "thumbnail": "shows an image that no job has",
    "leftover": "is a temporary file of a process that died",
}
_PAGE: Final = 500
_INPUT: Final = re.compile(r'"(?:init_image|sha256)":"([0-9a-f]{64})"')


@dataclass
class OrphanCounts:
    """``num_orphans``: files older than a day, whether removed or not. ``num_recent``: younger ones."""

    num_orphans: int = 0
    orphan_bytes: int = 0
    num_removed: int = 0
    removed_bytes: int = 0
    num_recent: int = 0


class NamedInputs:
    """The sha256 of every picture and LoRA that any spec names. They lie in a temporary file, not in memory."""

    def __init__(self, database: Database) -> None:
        self._table = sqlite3.connect("")  # an empty name is a temporary database on the disk
        self._table.execute("CREATE TABLE named (sha256 TEXT PRIMARY KEY) WITHOUT ROWID")
        named = ((sha256,) for spec in verified_rows.specs_with_inputs(database) for sha256 in input_sha256s(spec))
        self._table.executemany("INSERT OR IGNORE INTO named VALUES (?)", named)

    def __contains__(self, sha256: object) -> bool:
        return self._table.execute("SELECT 1 FROM named WHERE sha256 = ?", (sha256,)).fetchone() is not None

    def close(self) -> None:
        self._table.close()


def input_sha256s(spec: str) -> list[str]:
    """Of the init image and the LoRAs of a spec, which is canonical JSON: found in a damaged one too."""
    return _INPUT.findall(spec)


@dataclass(frozen=True)
class Known:
    """What the ledger knows of some files: their URIs, the contents that it records whatever their URI (of thumbnails:
    of what they show), and the contents that specs name."""

    uris: Container[str]
    sha256s: Container[str]
    named: Container[str]


def standing(file: StoredFile, url: str, known: Known) -> Literal["recorded", "elsewhere", "foreign", "orphan"]:
    """What the file is in the store of this URL. ``elsewhere``: its content is recorded, but under another URI."""
    key = store_key(file.key)
    if not file.is_file or key.kind == "foreign":
        return "foreign"
    if f"{url}/{file.key}" in known.uris or key.sha256 in known.named:
        return "recorded"
    if key.kind == "thumbnail" and key.sha256 in known.sha256s:
        return "recorded"
    return "elsewhere" if key.kind == "image" and key.sha256 in known.sha256s else "orphan"


class Orphans:
    """Looks through one image store. ``clean``: removes the old orphans that it finds. ``option``: what the user would
    say for that."""

    def __init__(
        self, database: Database, files: StoredFiles, now: datetime, *, clean: bool, option: str = "--clean"
    ) -> None:
        self._database = database
        self._files = files
        self._now = now
        self._old = now - OLD
        self._clean = clean
        self._option = option
        self.counts = OrphanCounts()

    def findings(self) -> Iterator[Finding]:
        """One for each orphan that stays and is old; notes of strangers' files, and of what is too young to judge.

        Raises:
            StorageError: the store cannot be looked through, or refuses a removal.
        """
        if self._clean and not verified_rows.records_images_below(self._database, self._files.url):
            self._clean = False
            sentence = "the ledger records no image in it: is it the right ledger? Nothing was removed"
            yield Finding(self._files.url, "other_ledger", sentence)
        with closing(NamedInputs(self._database)) as named:
            files = self._files.all()
            while page := list(islice(files, _PAGE)):
                known = self._known(page, named)
                for file in page:
                    yield from self._file_findings(file, known)
        if self.counts.num_recent:
            sentence = (
                f"{self.counts.num_recent:,} files without a row are younger than a day: a row comes after its file"
            )
            yield Finding(self._files.url, "recent", sentence, is_note=True)

    def _known(self, page: Sequence[StoredFile], named: NamedInputs) -> Known:
        keys = {self._uri(file): store_key(file.key) for file in page}
        images = {uri: key.sha256 for uri, key in keys.items() if key.kind == "image"}
        uris = verified_rows.recorded(self._database, images)
        shown = [key.sha256 for key in keys.values() if key.kind == "thumbnail" and key.sha256]
        missing = shown + [sha256 for uri, sha256 in images.items() if sha256 and uri not in uris]
        elsewhere = verified_rows.recorded_elsewhere(self._database, missing) if missing else frozenset()
        return Known(uris, elsewhere, named)

    def _uri(self, file: StoredFile) -> str:
        return f"{self._files.url}/{file.key}"

    def _file_findings(self, file: StoredFile, known: Known) -> Iterator[Finding]:
        name = f"file {file.key}"
        match standing(file, self._files.url, known):
            case "foreign":
                yield Finding(name, "foreign", "is none of Nightshift's; it is left alone", is_note=True)
            case "elsewhere":
                sentence = "is recorded, but at another place; it is left alone"
                yield Finding(name, "elsewhere", sentence, is_note=True)
            case "orphan" if self._is_old(file):
                yield from self._orphan(file, name)

    def _is_old(self, file: StoredFile) -> bool:
        modified_at = self._files.modified_at(file.key)
        is_old = modified_at is not None and modified_at < self._old
        self.counts.num_recent += not is_old
        return is_old

    def _orphan(self, file: StoredFile, name: str) -> Iterator[Finding]:
        self.counts.num_orphans += 1
        self.counts.orphan_bytes += file.size_bytes
        why = _WHY[store_key(file.key).kind]
        if not self._clean:
            yield Finding(name, "orphan", f"{why} ({file.size_bytes:,} bytes); {self._option} removes it")
        elif self._may_be_named(file):
            yield Finding(name, "orphan", f"{why}, but stays while a batch is submitted; try again after")
        elif verified_rows.recorded(self._database, [self._uri(file)]) or not self._files.remove(file.key, self._old):
            self.counts.orphan_bytes -= file.size_bytes
            self.counts.num_orphans -= 1  # by now it has its row, was written anew, or is gone
        else:
            self.counts.num_removed += 1
            self.counts.removed_bytes += file.size_bytes

    def _may_be_named(self, file: StoredFile) -> bool:
        """What lies in the store already is not written again for a batch that names it as its input."""
        if store_key(file.key).kind == "leftover":
            return False
        return verified_rows.is_submitting(self._database, self._now)
