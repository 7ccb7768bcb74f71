"""Submitting: rows of a manifest become jobs in the ledger; only then is anybody told that they were accepted.

Files: with ``skip_invalid``, the rows left out are listed in ``$NIGHTSHIFT_HOME/invalid/batch-ID.txt``.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from farm import batches, ledger, packs
from farm.database import Database
from producer.manifests.manifest import BadRow, Row
from producer.questions.twin_batches import newest_image
from producer.submitting.linking import link_existing
from producer.submitting.stager import Stager
from schemas.errors import ManifestError, StorageError, UnavailableError
from schemas.records import BatchDetails, Received, StagedJob
from schemas.timing import ANY_TIME, Timing

#: jobs in one transaction: those of SQLite keep other writers waiting, for about half a second
CHUNK: Final = 20_000
_CHUNK_CHARACTERS: Final = 10_000_000
#: invalid rows that are listed at a time
_LISTED: Final = 1_000
SHOWN_BAD_ROWS: Final = 20


@dataclass(frozen=True)
class BatchRequest:
    """What a batch is called and how it is treated. ``invalid_folder``: where to list bad rows; None refuses them."""

    name: str
    pair: str
    priority: int = 5
    invalid_folder: Path | None = None
    weight: float = 1.0
    timing: Timing = ANY_TIME
    #: the image store to whose images jobs may be linked; None renders all of them anew
    linked_in: str | None = None
    #: of the pair, where the submitter's own settings have one (``Settings.given_definition``)
    definition: str | None = None
    #: how the batch came to be, as JSON
    origin: dict[str, Any] | None = None
    #: of the firing that the batch ends
    fence: str | None = None
    #: who handed it in over HTTP
    received: Received | None = None


@dataclass(frozen=True)
class Submission:
    """An accepted batch. ``num_linked``: of its jobs, those whose image existed. ``invalid_file`` lists the rows that
    were left out, where some were."""

    batch_id: int
    num_jobs: int
    num_linked: int
    num_left_out: int
    invalid_file: Path | None


def submit(
    database: Database,
    rows: Iterable[Row | BadRow],
    request: BatchRequest,
    before_opening: Callable[[Submission], None] | None = None,
) -> Submission:
    """Stages every row, then opens the batch. A bad row refuses the whole batch, unless it may be skipped.

    before_opening: called when every row is staged. What it raises discards the batch.

    Raises:
        ManifestError: bad rows, each named; or no good row at all. Nothing is enqueued.
        LeaseLostError: another process submits the request's firing, or what was received, by now.
        UnavailableError: the ledger went away. Its sentence says where the batch may have been accepted all the same.
    """
    details = BatchDetails(request.weight, request.origin, request.fence, request.received)
    batch_id = batches.create_batch(database, request.name, request.pair, request.priority, request.timing, details)
    bad = _BadRows(request.invalid_folder, batch_id)
    try:
        num_jobs = _stage(database, batch_id, bad.filter(rows))
        bad.end()
        if not num_jobs:
            raise ManifestError(no_valid_row(bad.num, bad.first[0]))
        num_linked, newest = 0, None
        if request.linked_in is not None:
            newest = newest_image(database)
            num_linked = link_existing(database, batch_id, request.pair, request.linked_in, request.definition)
        submission = Submission(batch_id, num_jobs, num_linked, bad.num, bad.file)
        if before_opening is not None:
            before_opening(submission)
    except BaseException:
        bad.remove_file()
        batches.discard_batch(database, batch_id)
        raise
    _open(database, batch_id, request, newest)
    return submission


def _stage(database: Database, batch_id: int, rows: Iterator[Row]) -> int:
    num_jobs = 0
    with Stager(database, batch_id) as stager:
        staged = (StagedJob.of(number, row.written, row.repeat, row.meta) for number, row in enumerate(rows, 1))
        for jobs in _chunks(staged):
            stager.stage(jobs)
            num_jobs = jobs[-1].number
    return num_jobs


def _chunks(jobs: Iterator[StagedJob]) -> Iterator[list[StagedJob]]:
    """Large ones, for each is synced to the disk and touches most of an index; but no more than memory bears."""
    chunk: list[StagedJob] = []
    num_characters = 0
    for job in jobs:
        chunk.append(job)
        num_characters += job.num_characters
        if len(chunk) >= CHUNK or num_characters >= _CHUNK_CHARACTERS:
            yield chunk
            chunk, num_characters = [], 0
    if chunk:
        yield chunk


def _open(database: Database, batch_id: int, request: BatchRequest, linked_to: int | None) -> None:
    """What waits for a device goes back for a batch of higher priority. Not discarded where the ledger does not answer:
    the commit may have been done, and only its answer lost."""
    try:
        batches.open_batch(database, batch_id, request.fence, linked_to)
        if packs.wait_before(database, batch_id):
            ledger.return_queued(database, request.pair, request.priority)
    except UnavailableError as error:
        raise type(error)(
            f"{error}; batch {batch_id} may have been accepted: `nightshift status {batch_id}` tells"
        ) from error
    except BaseException:
        batches.discard_batch(database, batch_id)  # which leaves an opened one alone
        raise


class _BadRows:
    """Takes bad rows out of a stream: counts them, keeps the first few, lists them in a file if they may be skipped."""

    def __init__(self, folder: Path | None, batch_id: int) -> None:
        self.num = 0
        self.first: list[BadRow] = []
        self.file: Path | None = None
        self._path = folder / f"batch-{batch_id}.txt" if folder is not None else None
        self._lines: list[str] = []

    def filter(self, rows: Iterable[Row | BadRow]) -> Iterator[Row]:
        for row in rows:
            if isinstance(row, BadRow):
                self._take(row)
            else:
                yield row

    def _take(self, row: BadRow) -> None:
        self.num += 1
        if len(self.first) < SHOWN_BAD_ROWS:
            self.first.append(row)
        self._lines.append(f"{row}\n")
        if len(self._lines) >= _LISTED:
            self._write()

    def end(self) -> None:
        """After the last row. Raises ManifestError where a row was bad and may not be skipped."""
        if self._path is None:
            self._refuse()
        else:
            self._write()

    def remove_file(self) -> None:
        """The batch came to nothing. What removing says is not told: the error that led here is."""
        if self.file is not None:
            with suppress(OSError):
                self.file.unlink(missing_ok=True)

    def _write(self) -> None:
        if self._path is None or not self._lines:
            self._lines.clear()
            return
        # A batch that was discarded may have had this number before, so the first write begins the file anew.
        mode = "w" if self.file is None else "a"
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with open(self._path, mode, encoding="utf-8") as stream:
                self.file = self._path
                stream.writelines(self._lines)
        except OSError as error:
            raise StorageError(f"cannot list the invalid rows in {self._path}: {error.strerror}") from error
        self._lines.clear()

    def _refuse(self) -> None:
        if self.num:
            raise ManifestError(refusal(self.num, self.first))


def no_valid_row(num_bad: int, first: BadRow) -> str:
    """What is said where leaving out the bad rows leaves nothing."""
    which = "its only row is not" if num_bad == 1 else f"the first of {num_bad:,}"
    return f"no row of the manifest is valid; {which}: {first}"


def refusal(num_bad: int, first: Sequence[BadRow]) -> str:
    """What is said of a manifest with bad rows: how many, and the first of them, a line each."""
    lines = [str(row) for row in first[:SHOWN_BAD_ROWS]]
    if num_bad > len(lines):
        lines.append(f"... and {num_bad - len(lines)} more")
    rows = "1 row is" if num_bad == 1 else f"{num_bad} rows are"
    return f"{rows} invalid; nothing was enqueued (--skip-invalid leaves them out)\n" + "\n".join(lines)
