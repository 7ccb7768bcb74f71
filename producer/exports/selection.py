"""Which jobs an export holds: chosen once, before the first byte is written, and then fixed.

The ledger may be in use meanwhile, so the chosen jobs' ids are kept in a temporary file of 8 bytes for each; memory
does not grow with them. Their digest names the export: the same may be gone on with, another not be mixed into it.
"""

import hashlib
import json
import tempfile
from array import array
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import IO, Any, Final

from farm.database import Database
from producer.exports.captions import meta_value
from producer.exports.done_jobs import DoneJob, done_jobs
from producer.exports.image_files import Flaw
from producer.exports.looks import Look, look
from producer.exports.near_duplicates import NearDuplicates
from producer.exports.options import ExportOptions
from producer.exports.reading_ahead import read_ahead
from producer.exports.tally import Tally
from schemas.digest import canonical_json
from schemas.errors import InputError
from schemas.printable import shown

_CHUNK: Final = 4096
_ID_BYTES: Final = 8

#: is told what is done, of how many images it is done so far, and of how many it will be where that is known
Tell = Callable[[str, int, int | None], None]


@dataclass
class Selection:
    """``left_out``: a line of JSON for each job that was left out for its file or for what it shows."""

    ids: dict[str, IO[bytes]]
    left_out: IO[bytes]
    tally: Tally = field(default_factory=Tally)
    digest: str = ""

    def job_ids(self, split: str) -> Iterator[int]:
        """In the order of the export."""
        file = self.ids[split]
        file.seek(0)
        while chunk := file.read(_CHUNK * _ID_BYTES):
            yield from array("q", chunk)


class Choosing:
    """Goes through the batches' done jobs once."""

    def __init__(self, database: Database, options: ExportOptions, tell: Tell) -> None:
        self._database = database
        self._options = options
        self._tell = tell
        self._digest = hashlib.sha256()
        self._near = NearDuplicates(options.looks.max_distance)
        self._kept: array[int] = array("q")
        self._unseen = {column for where in options.where for column in where.meta_columns}

    def choose(self, versions: dict[str, str], stack: ExitStack) -> Selection:
        """``stack`` closes the temporary files.

        Raises:
            InputError: a job has no caption, --where asks for a meta column that no job has, or nothing is left.
            StorageError: an image is broken and not skipped, or the store does not answer.
        """
        self._digest.update(canonical_json({"options": self._options.as_json(), "versions": versions}).encode())
        names = self._options.splits.names
        left_out, *ids = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(len(names) + 1))  # noqa: SIM115
        chosen = Selection(dict(zip(names, ids, strict=True)), left_out)
        for job, found in self._looked_at():
            self._tell("chosen", chosen.tally.num_images, None)
            reason = self._reason(job, found)
            if reason is None:
                self._take(chosen, job)
            else:
                self._leave_out(chosen, job, reason)
        self._check(chosen)
        chosen.digest = self._digest.hexdigest()
        return chosen

    def _wanted(self) -> Iterator[DoneJob]:
        for job in done_jobs(self._database, self._options.batch_ids):
            if self._unseen:
                self._unseen -= {column for column in self._unseen if meta_value(job.meta, column) is not None}
            if all(where.holds(job.values, job.meta) for where in self._options.where):
                yield job

    def _looked_at(self) -> Iterator[tuple[DoneJob, Look | Flaw | None]]:
        options = self._options
        if not options.skip_broken and not options.looks.without:
            yield from ((job, None) for job in self._wanted())
            return
        yield from read_ahead(self._wanted(), lambda job: look(job, options.looks), lambda job: int(job.row.size_bytes))

    def _reason(self, job: DoneJob, found: Look | Flaw | None) -> dict[str, Any] | None:
        """Why the job is left out; None where it is not."""
        if isinstance(found, Flaw):
            if not self._options.skip_broken:
                raise found.error_of(job)
            return {"reason": "broken", "code": found.code}
        if found is None or (found.of_one is None and found.image_hash is None):
            return None
        if found.of_one is not None:
            return {"reason": found.of_one}
        assert found.image_hash is not None
        place = self._near.find(found.image_hash)
        if place is None:
            self._kept.extend((job.row.batch_id, job.row.number))
            return None
        return {"reason": "duplicate", "of": f"{self._kept[2 * place]}/{self._kept[2 * place + 1]}"}

    def _take(self, chosen: Selection, job: DoneJob) -> None:
        self._options.caption.of(job.values, job.meta)  # a job without one is said before anything is written
        split = self._options.splits.of(str(job.values["prompt"]))
        chosen.ids[split].write(array("q", [job.row.id]).tobytes())
        chosen.tally.add(job, split)
        self._digest.update(f"{job.name} {job.row.sha256}\n".encode())

    def _leave_out(self, chosen: Selection, job: DoneJob, reason: dict[str, Any]) -> None:
        line = json.dumps({"job": job.name, **reason}) + "\n"
        chosen.left_out.write(line.encode())
        chosen.tally.num_left_out[reason["reason"]] += 1
        self._digest.update(line.encode())

    def _check(self, chosen: Selection) -> None:
        if self._unseen:
            raise InputError(f"--where: no job has a column {shown(min(self._unseen))}")
        if not chosen.tally.num_images:
            left = f" ({chosen.tally.num_left_out.total():,} were left out)" if chosen.tally.num_left_out else ""
            raise InputError(f"there is no image to export{left}")
