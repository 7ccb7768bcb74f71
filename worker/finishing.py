"""From pixels to a stored file: watermark, encoding, metadata, sha256, image store. Runs beside the device."""

import hashlib
import time
from dataclasses import dataclass

from farm.image_store import ImageStore
from schemas.output import Output
from schemas.provenance import Environment, Provenance
from schemas.records import ClaimedJob, FinishedImage, StoredImage
from schemas.spec import JobSpec
from worker.containers import with_metadata
from worker.encoding import decoded, encoded
from worker.metadata import image_metadata
from worker.watermark import Pixels, has_room, num_bits_read, put_watermark


@dataclass(frozen=True)
class Unfinished:
    """One rendered image on its way to the store. ``pixels``: uint8 RGB of shape (height, width, 3)."""

    job: ClaimedJob
    spec: JobSpec
    pixels: Pixels
    provenance: Provenance
    render_seconds: float


@dataclass(frozen=True)
class Finisher:
    """Finishes images of one worker. Stateless: its threads share it."""

    store: ImageStore
    environment: Environment
    watermark: bool
    png_compress_level: int

    def finish(self, image: Unfinished) -> FinishedImage:
        """Bytes first: when this returns, the file is stored whole; the row comes after.

        Raises:
            StorageError: the image store refuses.
        """
        started = time.monotonic()
        pixels, marked = self._marked(image.pixels)
        output = image.spec.output
        content = encoded(pixels, output, self.png_compress_level)
        bits = num_bits_read(pixels if output.lossless else decoded(content)) if marked else None
        provenance = image.provenance.model_copy(update={"watermark_bits": bits})
        metadata = image_metadata(image.spec, provenance, self.environment, image.job.meta)
        stored = self._stored(pixels, output, with_metadata(content, output, metadata))
        return FinishedImage(
            job_id=image.job.id,
            image=stored,
            spec_digest=image.spec.digest,
            pair_fingerprint=self.environment.pair_fingerprint,
            provenance=provenance.model_dump(mode="json"),
            attempt=image.job.attempts + 1,
            render_seconds=image.render_seconds,
            finish_seconds=time.monotonic() - started,
        )

    def _marked(self, pixels: Pixels) -> tuple[Pixels, bool]:
        """The pixels to encode, and whether they carry the mark."""
        marked = self.watermark and has_room(pixels)
        return (put_watermark(pixels) if marked else pixels), marked

    def _stored(self, pixels: Pixels, output: Output, content: bytes) -> StoredImage:
        sha256 = hashlib.sha256(content).hexdigest()
        return StoredImage(
            uri=self.store.put(content, sha256, output.suffix),
            sha256=sha256,
            pixel_sha256=hashlib.sha256(pixels.tobytes()).hexdigest(),
            size_bytes=len(content),
            width=pixels.shape[1],
            height=pixels.shape[0],
            format=output.format,
        )
