"""What goes in and out of the ledger: small frozen records, no SQL.

``WrittenSpec`` is imported for the type checker alone: orders to a batch import this module, and no spec.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import msgspec

if TYPE_CHECKING:
    from schemas.written_spec import WrittenSpec


@dataclass(frozen=True)
class Received:
    """Of a batch that comes over HTTP: as ``schemas.web_tables.SubmissionRow`` names them."""

    token_id: int | None
    key_sha256: str | None = None
    request_sha256: str | None = None


@dataclass(frozen=True)
class BatchDetails:
    """What most batches leave as it is. ``fence``: held by whoever submits the firing that makes the batch."""

    weight: float = 1.0
    #: ``schemas.submit_order.Origin`` as JSON
    origin: dict[str, Any] | None = None
    fence: str | None = None
    received: Received | None = None


class StagedJob(msgspec.Struct, frozen=True, gc=False):
    """A row of a manifest, ready for the ledger: the columns of ``jobs`` that it decides, in its words.

    Text and numbers alone: thousands of them wait for their transaction, and the collector need not look at them.
    """

    #: its place in the batch, from 1
    number: int
    spec_digest: str
    repeat: int
    spec: str
    pack_key: str
    #: as JSON
    meta: str

    @classmethod
    def of(cls, number: int, written: "WrittenSpec", repeat: int, meta: dict[str, str]) -> Self:
        text = msgspec.json.encode(meta).decode()
        return cls(number, written.digest, repeat, written.canonical, written.kind.pack_key, text)

    @property
    def num_characters(self) -> int:
        """Of its text, which is what differs in size."""
        return len(self.spec) + len(self.meta)


@dataclass(frozen=True)
class ReleasedPack:
    """A pack that waits for a worker, and how many jobs it took from its batch."""

    id: str
    num_jobs: int
    pack_key: str


@dataclass(frozen=True)
class ClaimedJob:
    """A job in a worker's hands. ``spec``: canonical JSON. ``attempts``: tries counted against it so far.

    ``is_isolated``: it was in a pack that failed or died, and is suspected of it.
    """

    id: int
    spec: str
    meta: dict[str, str]
    attempts: int
    is_isolated: bool = False


@dataclass(frozen=True)
class ClaimedPack:
    """A pack in a worker's hands. Its id is the fence."""

    id: str
    batch_id: int
    pair: str
    pack_key: str
    worker_id: str
    jobs: tuple[ClaimedJob, ...]

    @property
    def is_suspect(self) -> bool:
        """It holds one job that was in a pack that failed or died."""
        return len(self.jobs) == 1 and self.jobs[0].is_isolated


@dataclass(frozen=True)
class StoredImage:
    """A file in the image store. ``pixel_sha256``: of the RGB bytes as they were encoded, watermark and all."""

    uri: str
    sha256: str
    pixel_sha256: str
    size_bytes: int
    width: int
    height: int
    format: str


@dataclass(frozen=True)
class FinishedImage:
    """One job's image, stored, with what the ledger keeps about it."""

    job_id: int
    image: StoredImage
    spec_digest: str
    pair_fingerprint: str
    provenance: dict[str, Any]
    attempt: int
    render_seconds: float
    finish_seconds: float

    def image_row(self) -> dict[str, Any]:
        return {**vars(self.image), "spec_digest": self.spec_digest, "pair_fingerprint": self.pair_fingerprint}

    def result_row(self) -> dict[str, Any]:
        names = ("job_id", "provenance", "attempt", "render_seconds", "finish_seconds")
        return {name: getattr(self, name) for name in names}
