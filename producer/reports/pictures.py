"""What sheets are made of: colours, faces, pictures fitted into boxes with rounded corners, and the file."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw

from farm.image_store import write_atomically
from producer.reports.caption import Typeface
from schemas.errors import StorageError
from schemas.printable import printable, printable_start

MAX_ENLARGEMENT: Final = 2
RADIUS: Final = 10

BACKGROUND: Final = (20, 21, 23)
CARD: Final = (31, 33, 36)
WELL: Final = (25, 26, 29)
TITLE: Final = (238, 239, 242)
CAPTION: Final = (214, 216, 221)
DETAIL: Final = (134, 138, 147)

TITLE_FACE: Final = Typeface(size=30, line_height=36)
CAPTION_FACE: Final = Typeface(size=16, line_height=21)
DETAIL_FACE: Final = Typeface(size=12, line_height=16)

_SMOOTHING: Final = 4  # rounded corners are drawn so many times larger, then reduced

#: a picture's path, or a function that reads its bytes when they are needed
PictureFile = Path | Callable[[], bytes]


def fitted_size(size: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
    """Width and height inside the box, in proportion; what is small is enlarged, but not to a blur."""
    scale = min(box[0] / size[0], box[1] / size[1], MAX_ENLARGEMENT)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def fitted_picture(file: PictureFile, name: str, box: tuple[int, int]) -> Image.Image:
    """The picture inside the box, RGB. ``name``: what it is called where it cannot be read.

    Raises:
        StorageError: it is no PNG, JPEG or WebP that can be read.
    """
    with _opened(file, name) as image:
        return _on_well(image).resize(fitted_size(image.size, box), Image.Resampling.LANCZOS)


def _opened(file: PictureFile, name: str) -> Image.Image:
    try:
        image = Image.open(file if isinstance(file, Path) else io.BytesIO(file()), formats=("PNG", "JPEG", "WEBP"))
        image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        shown = printable(str(file)) if isinstance(file, Path) else printable_start(name, 60)
        raise StorageError(f"cannot read the picture {shown} for the sheet: {printable(str(error))}") from error
    return image


def _on_well(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    solid = Image.new("RGBA", image.size, (*WELL, 255))
    solid.alpha_composite(image.convert("RGBA"))
    return solid.convert("RGB")


def rounded(size: tuple[int, int], radius: int) -> Image.Image:
    """A mask with rounded corners."""
    radius = max(1, min(radius, *(side // 2 for side in size)))
    corner = Image.new("L", (radius * _SMOOTHING, radius * _SMOOTHING))
    ImageDraw.Draw(corner).circle((radius * _SMOOTHING, radius * _SMOOTHING), radius * _SMOOTHING, 255)
    corner = corner.resize((radius, radius), Image.Resampling.BOX)
    mask = Image.new("L", size, 255)
    right, bottom = size[0] - radius, size[1] - radius
    for turned, place in (
        (corner, (0, 0)),
        (corner.transpose(Image.Transpose.FLIP_LEFT_RIGHT), (right, 0)),
        (corner.transpose(Image.Transpose.FLIP_TOP_BOTTOM), (0, bottom)),
        (corner.transpose(Image.Transpose.ROTATE_180), (right, bottom)),
    ):
        mask.paste(turned, place)
    return mask


def write_sheet(sheet: Image.Image, path: Path) -> None:
    """As PNG: at once and whole, in place of an older one. Raises StorageError."""
    content = io.BytesIO()
    sheet.save(content, "PNG")
    try:
        write_atomically(path, content.getvalue())
    except OSError as error:
        raise StorageError(f"cannot write the sheet {path}: {error.strerror or error}") from error
