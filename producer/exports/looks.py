"""What a picture shows, as far as an export asks: nothing but black, one colour, or what an earlier one shows.

Black and blank are judged from 64 × 64 means, so that grain and a watermark do not hide them; near-duplicates by the
perceptual hash of the library ImageHash (``phash``, 64 bits: https://www.hackerfactor.com/blog/?/archives/432).
"""

import io
from dataclasses import dataclass
from typing import Final, Literal

from PIL import Image

from farm.image_file import UNREADABLE
from producer.exports.done_jobs import DoneJob
from producer.exports.image_files import Flaw, recorded_bytes
from producer.exports.options import Looks
from producer.upkeep.finding import RESTORE_FILE
from schemas.errors import InputError

_FORMATS: Final = {"png": "PNG", "webp": "WEBP", "jpeg": "JPEG"}
_SIDE: Final = 64
#: of 255: means no brighter than this are black, and means no farther apart are one colour
_DARK: Final = 8
_EVEN: Final = 8


@dataclass(frozen=True)
class Look:
    """``of_one``: it is ``black`` or ``blank``. ``image_hash``: None where nobody asked."""

    of_one: Literal["black", "blank"] | None
    image_hash: int | None


def check_can_look(looks: Looks) -> None:
    """Raises InputError where the library is missing."""
    if "duplicates" not in looks.without:
        return
    try:
        import imagehash  # noqa: F401, PLC0415
    except ImportError:
        raise InputError("--without duplicates needs the library ImageHash: pip install 'nightshift[export]'") from None


def look(job: DoneJob, looks: Looks) -> Look | Flaw:
    """Reads the file whole, and decodes it where ``looks`` leaves anything out. Raises StorageError: see
    ``recorded_bytes``."""
    content = recorded_bytes(job)
    if isinstance(content, Flaw) or not looks.without:
        return content if isinstance(content, Flaw) else Look(None, None)
    try:
        with Image.open(io.BytesIO(content), formats=[_FORMATS[job.row.format]]) as picture:
            if picture.size != (job.row.width, job.row.height):
                return Flaw("dimensions", f"has not the {job.row.width} x {job.row.height} pixels that were recorded")
            return _look_at(picture.convert("RGB"), looks)
    except UNREADABLE as error:
        return Flaw("undecodable", f"cannot be decoded: {error}; {RESTORE_FILE}")


def _look_at(picture: Image.Image, looks: Looks) -> Look:
    of_one = _of_one_colour(picture)
    if of_one == "black" and "black" not in looks.without:
        of_one = "blank"
    if of_one is not None and of_one in looks.without:
        return Look(of_one, None)
    return Look(None, _hash(picture) if "duplicates" in looks.without else None)


def _of_one_colour(picture: Image.Image) -> Literal["black", "blank"] | None:
    extrema = picture.resize((_SIDE, _SIDE), Image.Resampling.BOX).getextrema()
    bounds = [(int(low), int(high)) for low, high in extrema if not isinstance(low, tuple)]  # type: ignore[misc]
    if max(high for _, high in bounds) <= _DARK:
        return "black"
    return "blank" if max(high - low for low, high in bounds) <= _EVEN else None


def _hash(picture: Image.Image) -> int:
    from imagehash import phash  # noqa: PLC0415

    return int(str(phash(picture)), 16)
