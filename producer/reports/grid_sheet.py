"""A grid on one PNG: the prompt above, a heading for each column and line, a picture or a reason in each cell."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw

from producer.expanding.axes import AxisValue
from producer.reports.caption import Typeface, cut_line, wrapped
from producer.reports.grid import Cell, Grid
from producer.reports.pictures import (
    BACKGROUND,
    CAPTION,
    CAPTION_FACE,
    DETAIL,
    RADIUS,
    TITLE,
    WELL,
    fitted_picture,
    fitted_size,
    rounded,
    write_sheet,
)

_MARGIN: Final = 40
_GAP: Final = 12
_MIN_SIDE: Final = 160  # of a cell: a reason must be readable in it
_MIN_WIDTH: Final = 720  # of the sheet: a prompt must be readable on it
_MAX_HEADING: Final = 220  # of the headings at the left
_INSET: Final = 12
_PROMPT_LINES: Final = 3
_HEADING_LINES: Final = 3
_REASON: Final = (235, 142, 128)

_PROMPT_FACE: Final = Typeface(size=24, line_height=31)
_FIELD_FACE: Final = Typeface(size=14, line_height=18)
_VALUE_FACE: Final = Typeface(size=18, line_height=23)


@dataclass(frozen=True)
class _Layout:
    """Where things stand. ``box``: width and height of a cell. Everything is pixels."""

    box: tuple[int, int]
    heading_width: int
    heading_height: int
    prompt: tuple[str, ...]
    size: tuple[int, int]

    @property
    def top(self) -> int:
        """Of the column headings."""
        return _MARGIN + len(self.prompt) * _PROMPT_FACE.line_height + CAPTION_FACE.line_height + 2 * _GAP

    def corner(self, column: int, line: int) -> tuple[int, int]:
        """Left and top of a cell."""
        left = _MARGIN + self.heading_width + column * (self.box[0] + _GAP)
        return left, self.top + self.heading_height + line * (self.box[1] + _GAP)


def grid_sheet(grid: Grid, path: Path) -> None:
    """Writes the sheet: at once and whole, in place of an older one. One picture at a time is in memory.

    Raises:
        StorageError: a picture cannot be read, or the sheet not written.
    """
    layout = _layout(grid)
    sheet = Image.new("RGB", layout.size, BACKGROUND)
    _draw_title(sheet, grid, layout)
    _draw_headings(sheet, grid, layout)
    for place, cell in enumerate(grid.cells):
        line, column = divmod(place, len(grid.axes.x.values))
        _draw_cell(sheet, cell, layout.corner(column, line), layout.box)
    write_sheet(sheet, path)


def _layout(grid: Grid) -> _Layout:
    num_columns, num_lines = len(grid.axes.x.values), len(grid.lines)
    box = _box(grid)
    heading_width = max(map(_heading_width, filter(None, grid.headings)), default=0)
    heading_height = max(_heading_height(value, box[0]) for value in grid.axes.x.values) + 8
    width = max(_MIN_WIDTH, 2 * _MARGIN + heading_width + num_columns * (box[0] + _GAP) - _GAP)
    prompt = tuple(wrapped(grid.title, _PROMPT_FACE, width - 2 * _MARGIN, _PROMPT_LINES))
    layout = _Layout(box, heading_width, heading_height, prompt, (width, 0))
    return _Layout(box, heading_width, heading_height, prompt, (width, layout.corner(0, num_lines)[1] - _GAP + _MARGIN))


def _box(grid: Grid) -> tuple[int, int]:
    """No larger than the largest picture needs; the more cells, the smaller."""
    most = max(len(grid.axes.x.values), len(grid.lines))
    side = 512 if most <= 4 else 384 if most <= 8 else 256
    sizes = [fitted_size((cell.spec.width, cell.spec.height), (side, side)) for cell in grid.cells]
    return max(_MIN_SIDE, *(width for width, _ in sizes)), max(_MIN_SIDE, *(height for _, height in sizes))


def _heading_width(value: AxisValue) -> int:
    texts = (_FIELD_FACE.width(value.field), _VALUE_FACE.width(value.label))
    return min(_MAX_HEADING, round(max(texts)) + 1) + 2 * _GAP


def _heading_height(value: AxisValue, width: int) -> int:
    num_lines = len(wrapped(value.label, _VALUE_FACE, width, _HEADING_LINES))
    return _FIELD_FACE.line_height + 4 + num_lines * _VALUE_FACE.line_height


def _draw_title(sheet: Image.Image, grid: Grid, layout: _Layout) -> None:
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(layout.prompt):
        draw.text((_MARGIN, _MARGIN + number * _PROMPT_FACE.line_height), line, TITLE, _PROMPT_FACE.font)
    top = _MARGIN + len(layout.prompt) * _PROMPT_FACE.line_height + 6
    shared = cut_line(grid.shared, CAPTION_FACE, sheet.width - 2 * _MARGIN)
    draw.text((_MARGIN, top), shared, DETAIL, CAPTION_FACE.font)


def _draw_headings(sheet: Image.Image, grid: Grid, layout: _Layout) -> None:
    """Those of the columns stand on the cells; those of the lines beside the middle of theirs."""
    width, height = layout.box
    for column, value in enumerate(grid.axes.x.values):
        left, top = layout.corner(column, 0)
        _draw_heading(sheet, value, (left, top - 8 - _heading_height(value, width)), width)
    for line, heading in enumerate(grid.headings):
        if heading is not None:
            room = layout.heading_width - 2 * _GAP
            top = layout.corner(0, line)[1] + (height - _heading_height(heading, room)) // 2
            _draw_heading(sheet, heading, (_MARGIN, top), room)


def _draw_heading(sheet: Image.Image, value: AxisValue, place: tuple[int, int], width: int) -> None:
    draw, (left, top) = ImageDraw.Draw(sheet), place
    draw.text(place, cut_line(value.field, _FIELD_FACE, width), DETAIL, _FIELD_FACE.font)
    top += _FIELD_FACE.line_height + 4
    for number, line in enumerate(wrapped(value.label, _VALUE_FACE, width, _HEADING_LINES)):
        draw.text((left, top + number * _VALUE_FACE.line_height), line, CAPTION, _VALUE_FACE.font)


def _draw_cell(sheet: Image.Image, cell: Cell, corner: tuple[int, int], box: tuple[int, int]) -> None:
    left, top = corner
    sheet.paste(WELL, (left, top, left + box[0], top + box[1]), rounded(box, RADIUS - 4))
    if cell.file is None:
        _draw_reason(sheet, cell.reason, corner, box)
        return
    image = fitted_picture(cell.file, cell.label, box)
    place = left + (box[0] - image.width) // 2, top + (box[1] - image.height) // 2
    sheet.paste(image, place, rounded(image.size, RADIUS - 4))


def _draw_reason(sheet: Image.Image, reason: str, corner: tuple[int, int], box: tuple[int, int]) -> None:
    draw, (left, top) = ImageDraw.Draw(sheet), corner
    num_lines = (box[1] - 2 * _INSET) // CAPTION_FACE.line_height
    for number, line in enumerate(wrapped(reason, CAPTION_FACE, box[0] - 2 * _INSET, num_lines)):
        draw.text((left + _INSET, top + _INSET + number * CAPTION_FACE.line_height), line, _REASON, CAPTION_FACE.font)
