"""Contact sheets: many pictures on one PNG, each with its caption. Pillow alone, with its built-in font."""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw

from farm.image_store import write_atomically
from producer.caption import Typeface, cut_line, drawable, wrapped
from schemas.errors import StorageError

MAX_PICTURES: Final = 100

_MARGIN: Final = 40
_GAP: Final = 16
_BOX: Final = 320  # the square that a picture is fitted into
_INSET: Final = 14  # between a card's edge and its picture
_CAPTION_LINES: Final = 3
_DETAIL_LINES: Final = 2
_HEADER: Final = 92
_MAX_ENLARGEMENT: Final = 2
_RADIUS: Final = 10
_SMOOTHING: Final = 4  # rounded corners are drawn so many times larger, then reduced

_BACKGROUND: Final = (20, 21, 23)
_CARD: Final = (31, 33, 36)
_WELL: Final = (25, 26, 29)
_TITLE: Final = (238, 239, 242)
_CAPTION: Final = (214, 216, 221)
_DETAIL: Final = (134, 138, 147)

_TITLE_FACE: Final = Typeface(size=30, line_height=36)
_COUNT_FACE: Final = Typeface(size=16, line_height=20)
_CAPTION_FACE: Final = Typeface(size=16, line_height=21)
_DETAIL_FACE: Final = Typeface(size=12, line_height=16)

_CARD_WIDTH: Final = _BOX + 2 * _INSET
_CARD_HEIGHT: Final = (
    _INSET + _BOX + 12  # the picture, and a little room under it
    + _CAPTION_LINES * _CAPTION_FACE.line_height + 8
    + _DETAIL_LINES * _DETAIL_FACE.line_height + _INSET
)  # fmt: skip


@dataclass(frozen=True)
class SheetPicture:
    """A picture and what stands under it. ``file``: its path, or a function that reads its bytes when they are needed.

    ``caption`` is cut to three lines; ``detail`` (``256×256 · euler · 12 steps · seed 7``) to two.
    """

    file: Path | Callable[[], bytes]
    caption: str
    detail: str


def contact_sheet(pictures: Sequence[SheetPicture], path: Path, title: str) -> None:
    """Writes the sheet as PNG: at once and whole, in place of an older one. One picture at a time is in memory.

    Raises:
        ValueError: no picture, or more than ``MAX_PICTURES``.
        StorageError: a picture cannot be read, or the sheet not written.
    """
    if not 1 <= len(pictures) <= MAX_PICTURES:
        raise ValueError(f"a contact sheet has 1 to {MAX_PICTURES} pictures, not {len(pictures)}")
    num_columns = _num_columns(len(pictures))
    sheet = Image.new("RGB", _sheet_size(len(pictures), num_columns), _BACKGROUND)
    _draw_header(sheet, title, len(pictures))
    for place, picture in enumerate(pictures):
        row, column = divmod(place, num_columns)
        left, top = _MARGIN + column * (_CARD_WIDTH + _GAP), _HEADER + row * (_CARD_HEIGHT + _GAP)
        sheet.paste(_card(picture), (left, top))
    _write(sheet, path)


def _num_columns(num_pictures: int) -> int:
    """As many columns as make the sheet a little wider than high; a few pictures stand in one row."""
    return min(num_pictures, max(3, math.ceil(math.sqrt(num_pictures * 1.5))))


def _sheet_size(num_pictures: int, num_columns: int) -> tuple[int, int]:
    num_rows = math.ceil(num_pictures / num_columns)
    width = 2 * _MARGIN + num_columns * (_CARD_WIDTH + _GAP) - _GAP
    return width, _HEADER + num_rows * (_CARD_HEIGHT + _GAP) - _GAP + _MARGIN


def _draw_header(sheet: Image.Image, title: str, num_pictures: int) -> None:
    draw = ImageDraw.Draw(sheet)
    count = "1 picture" if num_pictures == 1 else f"{num_pictures} pictures"
    count_width = _COUNT_FACE.width(count)
    baseline = _HEADER - 32
    room = sheet.width - 2 * _MARGIN - count_width - 24
    draw.text((_MARGIN, baseline), cut_line(title, _TITLE_FACE, room), _TITLE, _TITLE_FACE.font, anchor="ls")
    draw.text((sheet.width - _MARGIN, baseline), count, _DETAIL, _COUNT_FACE.font, anchor="rs")


def _card(picture: SheetPicture) -> Image.Image:
    card = Image.new("RGB", (_CARD_WIDTH, _CARD_HEIGHT), _BACKGROUND)
    card.paste(_CARD, mask=_rounded(card.size, _RADIUS))
    well = (_BOX, _BOX)
    card.paste(_WELL, (_INSET, _INSET), _rounded(well, _RADIUS - 4))
    image = _fitted(picture)
    offset = (_INSET + (_BOX - image.width) // 2, _INSET + (_BOX - image.height) // 2)
    card.paste(image, offset, _rounded(image.size, _RADIUS - 4))
    _draw_texts(card, picture)
    return card


def _draw_texts(card: Image.Image, picture: SheetPicture) -> None:
    draw = ImageDraw.Draw(card)
    top = _INSET + _BOX + 12
    for number, line in enumerate(wrapped(picture.caption, _CAPTION_FACE, _BOX, _CAPTION_LINES)):
        draw.text((_INSET, top + number * _CAPTION_FACE.line_height), line, _CAPTION, _CAPTION_FACE.font)
    details = _detail_lines(picture.detail)
    top = _CARD_HEIGHT - _INSET - len(details) * _DETAIL_FACE.line_height
    for number, line in enumerate(details):
        draw.text((_INSET, top + number * _DETAIL_FACE.line_height), line, _DETAIL, _DETAIL_FACE.font)


def _detail_lines(detail: str) -> list[str]:
    """The parts between ``·`` on as few lines as they need; none is broken, so that a seed can be read off."""
    lines: list[str] = []
    for part in detail.split(" · "):
        longer = f"{lines[-1]} - {part}" if lines else part
        if lines and _DETAIL_FACE.width(drawable(longer)) <= _BOX:
            lines[-1] = longer
        else:
            lines.append(part)
    return [cut_line(line, _DETAIL_FACE, _BOX) for line in lines[:_DETAIL_LINES]]


def _fitted(picture: SheetPicture) -> Image.Image:
    """The picture inside the box, its sides in proportion; a small one is enlarged, but not to a blur."""
    with _opened(picture) as image:
        scale = min(_BOX / image.width, _BOX / image.height, _MAX_ENLARGEMENT)
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        return _on_well(image).resize(size, Image.Resampling.LANCZOS)


def _opened(picture: SheetPicture) -> Image.Image:
    source = picture.file if isinstance(picture.file, Path) else io.BytesIO(picture.file())
    try:
        image = Image.open(source, formats=("PNG", "JPEG", "WEBP"))
        image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        name = picture.file if isinstance(picture.file, Path) else picture.caption[:60]
        raise StorageError(f"cannot read the picture {name} for the contact sheet: {error}") from error
    return image


def _on_well(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    solid = Image.new("RGBA", image.size, (*_WELL, 255))
    solid.alpha_composite(image.convert("RGBA"))
    return solid.convert("RGB")


def _rounded(size: tuple[int, int], radius: int) -> Image.Image:
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


def _write(sheet: Image.Image, path: Path) -> None:
    content = io.BytesIO()
    sheet.save(content, "PNG")
    try:
        write_atomically(path, content.getvalue())
    except OSError as error:
        raise StorageError(f"cannot write the contact sheet {path}: {error.strerror or error}") from error
