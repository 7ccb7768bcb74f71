"""From pixels to a stored file: watermark, metadata, PNG, sha256, image store. Runs beside the device."""

import hashlib
import io
import time
from dataclasses import dataclass

from PIL import Image

from farm.image_store import ImageStore
from schemas.provenance import Environment, Provenance
from schemas.records import ClaimedJob, FinishedImage, StoredImage
from schemas.spec import JobSpec
from worker.metadata import png_info
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
        pixels, bits = self._marked(image.pixels)
        provenance = image.provenance.model_copy(update={"watermark_bits": bits})
        content = self._png(pixels, image, provenance)
        sha256 = hashlib.sha256(content).hexdigest()
        stored = StoredImage(
            uri=self.store.put(content, sha256, "png"),
            sha256=sha256,
            pixel_sha256=hashlib.sha256(pixels.tobytes()).hexdigest(),
            size_bytes=len(content),
            width=pixels.shape[1],
            height=pixels.shape[0],
            format="png",
        )
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

    def _marked(self, pixels: Pixels) -> tuple[Pixels, int | None]:
        if not self.watermark or not has_room(pixels):
            return pixels, None
        marked = put_watermark(pixels)
        return marked, num_bits_read(marked)

    def _png(self, pixels: Pixels, image: Unfinished, provenance: Provenance) -> bytes:
        stream = io.BytesIO()
        info = png_info(image.spec, provenance, self.environment, image.job.meta)
        Image.fromarray(pixels).save(stream, "PNG", compress_level=self.png_compress_level, pnginfo=info)
        return stream.getvalue()
