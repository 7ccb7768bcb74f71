"""A finished batch for people: its contact sheet, and its images under names that one can read."""

import re
import secrets
import unicodedata
from functools import partial
from pathlib import Path
from typing import Any, Final

from farm.database import Database
from farm.image_store import read_image
from producer.questions.queries import BatchSummary, results, sampled_results
from producer.reports.detail import detail
from producer.reports.sheet import SheetPicture, contact_sheet
from schemas.errors import StorageError
from schemas.spec import JobSpec

_SHEET_PICTURES: Final = 48
_SLUG_CHARACTERS: Final = 60


def make_sheet(database: Database, batch: BatchSummary, path: Path) -> int:
    """Draws at most 48 images, evenly spread over the batch. Returns how many there are on the sheet.

    Raises:
        StorageError: an image cannot be read, or the sheet not be written.
    """
    pictures = [_picture(row) for row in sampled_results(database, batch.id, batch.num_jobs, _SHEET_PICTURES)]
    if pictures:
        title = f"{batch.name} · {batch.num_done} of {batch.num_jobs} images"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            contact_sheet(pictures, path, title)
        except OSError as error:
            raise StorageError(f"cannot write the contact sheet {path}: {error.strerror or error}") from error
    return len(pictures)


def place_images(database: Database, batch_id: int, folder: Path) -> int:
    """Copies every image that the batch has into the folder, as ``000001-a-red-cat.png``. Copies, and no links: whoever
    edits a picture must not change a recorded file. Files of the same name are replaced. Returns how many.

    Raises:
        StorageError: the folder cannot be written, or an image not be read.
    """
    num_placed = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for row in results(database, batch_id):
            place_image(row.uri, folder / _readable_name(row))
            num_placed += 1
    except OSError as error:
        raise StorageError(f"cannot place images in {folder}: {error.strerror or error}") from error
    return num_placed


def place_image(uri: str, target: Path) -> None:
    """A copy of the image, whole or absent, but not synced: the image store keeps what must survive a power cut."""
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.write_bytes(read_image(uri))
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _readable_name(row: Any) -> str:
    slug = slugged(JobSpec.from_json(row.spec).prompt, _SLUG_CHARACTERS)
    suffix = row.uri.rpartition(".")[2]
    return f"{row.number:06}-{slug}.{suffix}" if slug else f"{row.number:06}.{suffix}"


def slugged(text: str, max_characters: int) -> str:
    """The text as part of a file's name: lower-case ASCII letters and digits, with ``-`` between them; may be empty."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower())[:max_characters].strip("-")


def _picture(row: Any) -> SheetPicture:
    spec = JobSpec.from_json(row.spec)
    return SheetPicture(partial(read_image, row.uri), spec.prompt, detail(spec))
