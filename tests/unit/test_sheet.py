"""Contact sheets, with real pictures and the real font."""

import io
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from producer.reports.caption import ELLIPSIS, Typeface, cut_line, drawable, wrapped
from producer.reports.sheet import MAX_PICTURES, SheetPicture, contact_sheet
from schemas.errors import StorageError

FACE = Typeface(size=16, line_height=21)
RED = (255, 0, 0)


def picture(width: int, height: int, color: tuple[int, int, int] = RED, caption: str = "a cat") -> SheetPicture:
    file = io.BytesIO()
    Image.new("RGB", (width, height), color).save(file, "PNG")
    return SheetPicture(file.getvalue, caption, f"{width}×{height} · euler · 10 steps · seed 1")


def drawn(pictures: list[SheetPicture], path: Path, title: str = "demo") -> Image.Image:
    contact_sheet(pictures, path, title)
    with Image.open(path) as sheet:
        assert sheet.format == "PNG"
        return sheet.convert("RGB")


def extent(sheet: Image.Image, color: tuple[int, int, int]) -> tuple[int, int]:
    """Width and height of what has exactly this colour."""
    red, green, blue = ImageChops.difference(sheet, Image.new("RGB", sheet.size, color)).split()
    other = ImageChops.lighter(red, ImageChops.lighter(green, blue))
    left, top, right, bottom = other.point(lambda difference: 0 if difference else 255).getbbox() or (0, 0, 0, 0)
    return right - left, bottom - top


@pytest.mark.parametrize(
    ("size", "wanted"),
    [((1024, 1024), (320, 320)), ((192, 320), (192, 320)), ((1280, 640), (320, 160)), ((64, 96), (128, 192))],
)
def test_a_picture_keeps_its_proportions(tmp_path: Path, size: tuple[int, int], wanted: tuple[int, int]) -> None:
    assert extent(drawn([picture(*size)], tmp_path / "sheet.png"), RED) == wanted


def test_every_picture_is_on_the_sheet(tmp_path: Path) -> None:
    colors = [(n * 10, 255 - n * 10, 128) for n in range(24)]
    sheet = drawn([picture(64, 64, color) for color in colors], tmp_path / "sheet.png")
    assert set(colors) <= {color for _, color in sheet.getcolors(maxcolors=100_000) or []}
    assert 1 < sheet.width / sheet.height < 1.5


def test_captions_are_drawn_under_their_picture(tmp_path: Path) -> None:
    with_text = drawn([picture(64, 64, caption="a cat")], tmp_path / "a.png")
    without = drawn([picture(64, 64, caption="")], tmp_path / "b.png")
    other = drawn([picture(64, 64, caption="a dog")], tmp_path / "c.png")
    assert with_text.tobytes() != without.tobytes()
    assert with_text.tobytes() != other.tobytes()


def test_pictures_are_read_one_at_a_time_from_paths_too(tmp_path: Path) -> None:
    Image.new("LA", (64, 64), (255, 255)).save(tmp_path / "grey.png")
    sheet = drawn([SheetPicture(tmp_path / "grey.png", "grey", "")], tmp_path / "sheet.png")
    assert extent(sheet, (255, 255, 255)) == (128, 128)


def test_a_sheet_replaces_an_older_one_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "sheet.png").write_text("old")
    drawn([picture(64, 64)], tmp_path / "sheet.png")
    assert [file.name for file in tmp_path.iterdir()] == ["sheet.png"]


def test_an_unreadable_picture_is_named_and_the_old_sheet_stays(tmp_path: Path) -> None:
    (tmp_path / "sheet.png").write_text("old")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(StorageError, match=r"broken\.png for the sheet"):
        contact_sheet([SheetPicture(tmp_path / "broken.png", "", "")], tmp_path / "sheet.png", "demo")
    assert (tmp_path / "sheet.png").read_text() == "old"


def test_a_sheet_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write the sheet"):
        contact_sheet([picture(64, 64)], tmp_path / "file" / "sheet.png", "demo")


@pytest.mark.parametrize("num", [0, MAX_PICTURES + 1])
def test_the_number_of_pictures_is_bounded(tmp_path: Path, num: int) -> None:
    with pytest.raises(ValueError, match=f"1 to {MAX_PICTURES} pictures, not {num}"):
        contact_sheet([picture(64, 64)] * num, tmp_path / "sheet.png", "demo")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\tcat\n on a  mat", "a cat on a mat"),
        ("a \u202ecat\u200f\x07\x1b", "a cat"),
        ("Salvador Dalí, Zürich, Łódź", "Salvador Dali, Zurich, Lodz"),
        ("256×256 · 10 steps", "256x256 - 10 steps"),
        ("cat 猫猫 dog 🎃🎃🎃 x", f"cat {ELLIPSIS} dog {ELLIPSIS} x"),
        ("猫 猫", ELLIPSIS),
        ("\ud800cat\ufe0f", "cat"),
    ],
)
def test_what_the_font_lacks_is_not_drawn_as_boxes(text: str, shown: str) -> None:
    assert drawable(text) == shown


def test_long_captions_are_wrapped_and_end_in_an_ellipsis() -> None:
    lines = wrapped("a very long prompt about many cats and dogs on a mat " * 9, FACE, width=300, max_lines=3)
    assert len(lines) == 3
    assert all(FACE.width(line) <= 300 for line in lines)
    assert lines[-1].endswith(ELLIPSIS)
    assert not lines[0].endswith(ELLIPSIS)


def test_a_short_caption_is_whole() -> None:
    assert wrapped("two cats", FACE, width=300, max_lines=3) == ["two cats"]
    assert wrapped("", FACE, width=300, max_lines=3) == []
    assert cut_line("two cats", FACE, width=300) == "two cats"


def test_a_word_longer_than_a_line_is_broken() -> None:
    lines = wrapped("Pneumonoultramicroscopicsilicovolcanoconiosis" * 2, FACE, width=200, max_lines=9)
    assert "".join(lines) == "Pneumonoultramicroscopicsilicovolcanoconiosis" * 2
    assert all(FACE.width(line) <= 200 for line in lines)


def test_an_endless_caption_is_cut_quickly() -> None:
    assert cut_line("x" * 20_000, FACE, width=300).endswith(ELLIPSIS)
    assert wrapped("i " * 20_000, FACE, width=5_000, max_lines=3)[-1].endswith(ELLIPSIS)
