"""Small pictures of recorded images, made once and kept in the image store: ``thumbnails/ab/cd/abcd….webp``.

The key is the sha256 of the image that one shows, so it never grows old. A lost one is made anew.
"""

import hashlib
import io
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from PIL import Image

from farm.image_store import ImageStore, read_image
from schemas.errors import StorageError

#: the longer side, in pixels: sharp at a third of a phone's width, and at a sixth of a screen's
BOX: Final = (384, 384)
_QUALITY: Final = 75


def thumbnail(images_url: str, image_sha256: str, read: Callable[[], bytes]) -> bytes:
    """WebP that fits into ``BOX``. It is stored if it can be, and made again the next time if not.

    read: gives the image's file, where it is wanted; may raise OSError.

    Raises:
        StorageError: the image cannot be read, or is another one than was recorded.
    """
    store, key = ImageStore(images_url), f"thumbnails/{image_sha256[:2]}/{image_sha256[2:4]}/{image_sha256}.webp"
    with suppress(StorageError):
        return read_image(f"{store.url}/{key}")
    content = _made(image_sha256, read)
    with suppress(StorageError):
        store.keep(key, content)
    return content


def _made(image_sha256: str, read: Callable[[], bytes]) -> bytes:
    try:
        file = read()
        if hashlib.sha256(file).hexdigest() != image_sha256:
            raise StorageError(f"what is stored is no longer the image {image_sha256}")
        with Image.open(io.BytesIO(file), formats=("PNG", "JPEG", "WEBP")) as image:
            image.draft("RGB", BOX)
            image.thumbnail(BOX, Image.Resampling.BOX, reducing_gap=2.0)
            content = io.BytesIO()
            image.convert("RGB").save(content, "WEBP", quality=_QUALITY, method=2)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise StorageError(f"cannot read the image {image_sha256}: {error}") from error
    return content.getvalue()
