"""Contact sheets: many pictures on one PNG, each with its caption. Pillow alone, with its built-in font."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw

from producer.reports.caption import Typeface, cut_line, drawable, wrapped
from producer.reports.pictures import (
    BACKGROUND,
    CAPTION,
    CAPTION_FACE,
    CARD,
    DETAIL,
    DETAIL_FACE,
    RADIUS,
    TITLE,
    TITLE_FACE,
    WELL,
    PictureFile,
    fitted_picture,
    rounded,
    write_sheet,
)

MAX_PICTURES: Final = 100

_MARGIN: Final = 40
_GAP: Final = 16
_BOX: Final = 320  # the square that a picture is fitted into
_INSET: Final = 14  # between a card's edge and its picture
_CAPTION_LINES: Final = 3
_DETAIL_LINES: Final = 2
_HEADER: Final = 92

_COUNT_FACE: Final = Typeface(size=16, line_height=20)

_CARD_WIDTH: Final = _BOX + 2 * _INSET
_CARD_HEIGHT: Final = (
    _INSET + _BOX + 12  # the picture, and a little room under it
    + _CAPTION_LINES * CAPTION_FACE.line_height + 8
    + _DETAIL_LINES * DETAIL_FACE.line_height + _INSET
)  # fmt: skip


@dataclass(frozen=True)
class SheetPicture:
    """A picture and what stands under it.

    ``caption`` is cut to three lines; ``detail`` (``256×256 · euler · 12 steps · seed 7``) to two.
    """

    file: PictureFile
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
    sheet = Image.new("RGB", _sheet_size(len(pictures), num_columns), BACKGROUND)
    _draw_header(sheet, title, len(pictures))
    for place, picture in enumerate(pictures):
        row, column = divmod(place, num_columns)
        left, top = _MARGIN + column * (_CARD_WIDTH + _GAP), _HEADER + row * (_CARD_HEIGHT + _GAP)
        sheet.paste(_card(picture), (left, top))
    write_sheet(sheet, path)


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
    draw.text((_MARGIN, baseline), cut_line(title, TITLE_FACE, room), TITLE, TITLE_FACE.font, anchor="ls")
    draw.text((sheet.width - _MARGIN, baseline), count, DETAIL, _COUNT_FACE.font, anchor="rs")


def _card(picture: SheetPicture) -> Image.Image:
    card = Image.new("RGB", (_CARD_WIDTH, _CARD_HEIGHT), BACKGROUND)
    card.paste(CARD, mask=rounded(card.size, RADIUS))
    well = (_BOX, _BOX)
    card.paste(WELL, (_INSET, _INSET), rounded(well, RADIUS - 4))
    image = fitted_picture(picture.file, picture.caption, well)
    offset = (_INSET + (_BOX - image.width) // 2, _INSET + (_BOX - image.height) // 2)
    card.paste(image, offset, rounded(image.size, RADIUS - 4))
    _draw_texts(card, picture)
    return card


def _draw_texts(card: Image.Image, picture: SheetPicture) -> None:
    draw = ImageDraw.Draw(card)
    top = _INSET + _BOX + 12
    for number, line in enumerate(wrapped(picture.caption, CAPTION_FACE, _BOX, _CAPTION_LINES)):
        draw.text((_INSET, top + number * CAPTION_FACE.line_height), line, CAPTION, CAPTION_FACE.font)
    details = _detail_lines(picture.detail)
    top = _CARD_HEIGHT - _INSET - len(details) * DETAIL_FACE.line_height
    for number, line in enumerate(details):
        draw.text((_INSET, top + number * DETAIL_FACE.line_height), line, DETAIL, DETAIL_FACE.font)


def _detail_lines(detail: str) -> list[str]:
    """The parts between ``·`` on as few lines as they need; none is broken, so that a seed can be read off."""
    lines: list[str] = []
    for part in detail.split(" · "):
        longer = f"{lines[-1]} - {part}" if lines else part
        if lines and DETAIL_FACE.width(drawable(longer)) <= _BOX:
            lines[-1] = longer
        else:
            lines.append(part)
    return [cut_line(line, DETAIL_FACE, _BOX) for line in lines[:_DETAIL_LINES]]
