"""From pixels to a stored file: watermark, encoding, metadata, sha256, image store. Runs beside the device."""

import hashlib
import time
from dataclasses import dataclass

import numpy as np

from farm.image_store import ImageStore
from farm.watermark import Pixels, has_room, num_bits_read, put_watermark
from schemas.output import Output
from schemas.provenance import Environment, Provenance
from schemas.records import ClaimedJob, FinishedImage, StoredImage
from schemas.spec import JobSpec
from worker.image_files.containers import with_metadata
from worker.image_files.encoding import decoded, encoded
from worker.image_files.metadata import image_metadata


@dataclass(frozen=True)
class Unfinished:
    """One rendered image on its way to the store. ``pixels``: uint8 RGB of shape (height, width, 3)."""

    job: ClaimedJob
    spec: JobSpec
    pixels: Pixels
    provenance: Provenance
    render_seconds: float


@dataclass(frozen=True)
class MadeFile:
    """An image file with all that it says of itself. ``pixels``: as they were encoded, watermark and all."""

    content: bytes
    pixels: Pixels
    provenance: Provenance


@dataclass(frozen=True)
class FileMaker:
    """Makes image files. Stateless: threads share it. Equal pixels and equal records make equal files."""

    environment: Environment
    watermark: bool
    png_compress_level: int

    def made(self, spec: JobSpec, pixels: Pixels, provenance: Provenance, meta: dict[str, str]) -> MadeFile:
        """Watermark, encoding, metadata. How many bits of the mark can be read is added to the provenance."""
        marked = self.watermark and has_room(pixels)
        if marked:
            pixels = put_watermark(pixels)
        content = encoded(pixels, spec.output, self.png_compress_level)
        bits = num_bits_read(pixels if spec.output.lossless else decoded(content)) if marked else None
        provenance = provenance.model_copy(update={"watermark_bits": bits})
        metadata = image_metadata(spec, provenance, self.environment, meta)
        return MadeFile(with_metadata(content, spec.output, metadata), pixels, provenance)


@dataclass(frozen=True)
class Finisher:
    """Finishes images of one worker. Stateless: its threads share it."""

    store: ImageStore
    maker: FileMaker

    def finish(self, image: Unfinished) -> FinishedImage:
        """Bytes first: when this returns, the file is stored whole; the row comes after.

        Raises:
            StorageError: the image store refuses.
        """
        started = time.monotonic()
        made = self.maker.made(image.spec, image.pixels, image.provenance, image.job.meta)
        return FinishedImage(
            job_id=image.job.id,
            image=self._stored(made, image.spec.output),
            spec_digest=image.spec.digest,
            pair_fingerprint=self.maker.environment.pair_fingerprint,
            provenance=made.provenance.model_dump(mode="json"),
            attempt=image.job.attempts + 1,
            render_seconds=image.render_seconds,
            finish_seconds=time.monotonic() - started,
        )

    def _stored(self, made: MadeFile, output: Output) -> StoredImage:
        sha256 = hashlib.sha256(made.content).hexdigest()
        return StoredImage(
            uri=self.store.put(made.content, sha256, output.suffix),
            sha256=sha256,
            pixel_sha256=hashlib.sha256(np.ascontiguousarray(made.pixels)).hexdigest(),
            size_bytes=len(made.content),
            width=made.pixels.shape[1],
            height=made.pixels.shape[0],
            format=output.format,
        )
