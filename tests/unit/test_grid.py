"""Grids as sheets and as a page, with real pictures and the real font."""

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from producer.expanding.axes import Axes, parsed_axes
from producer.reports.grid import Cell, Grid
from producer.reports.grid_page import grid_page
from producer.reports.grid_sheet import grid_sheet
from schemas.errors import StorageError
from schemas.spec import JobSpec

HOSTILE = '<script>alert("1")</script> & </h2><img src=x onerror=alert(1)> \'"> {0} \u202egnp'
AXES = parsed_axes("refiner.start=off,0.8,0.9", "seed=1,2")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    return tmp_path


def color_of(place: int) -> tuple[int, int, int]:
    return 40 * place + 20, 200 - 30 * place, 99


def grid_of(folder: Path, axes: Axes = AXES, *, missing: int = -1, size: tuple[int, int] = (64, 64),
            prompt: str = "a cat") -> Grid:  # fmt: skip
    """A grid of plain colours. ``missing``: the place of a cell that failed."""
    cells = []
    for place, values in enumerate(axes.cells):
        spec = JobSpec.parse({"prompt": prompt, "width": size[0], "height": size[1], "seed": 7})
        file = folder / "images" / f"{place}.png"
        Image.new("RGB", size, color_of(place)).save(file)
        failed = place == missing
        cells.append(Cell(values, spec, None if failed else file, "failed: out of memory" if failed else ""))
    return Grid(1, axes, cells)


def drawn(grid: Grid, folder: Path) -> Image.Image:
    grid_sheet(grid, folder / "sheet.png")
    with Image.open(folder / "sheet.png") as sheet:
        assert sheet.format == "PNG"
        return sheet.convert("RGB")


def extent(sheet: Image.Image, color: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what has exactly this colour."""
    red, green, blue = ImageChops.difference(sheet, Image.new("RGB", sheet.size, color)).split()
    other = ImageChops.lighter(red, ImageChops.lighter(green, blue))
    found = other.point(lambda difference: 0 if difference else 255).getbbox()
    assert found is not None
    return found


def ink(sheet: Image.Image, box: tuple[int, int, int, int]) -> int:
    """How many pixels of the box are not background."""
    part = sheet.crop(box)
    return sum(num for num, color in part.getcolors(part.width * part.height) or [] if color != (20, 21, 23))


# The sheet


def test_pictures_stand_in_columns_by_x_and_in_lines_by_y(folder: Path) -> None:
    sheet = drawn(grid_of(folder), folder)
    places = [extent(sheet, color_of(place)) for place in range(6)]
    assert [place[0] for place in places[:3]] == [place[0] for place in places[3:]] == sorted({p[0] for p in places})
    assert {place[1] for place in places[:3]} == {places[0][1]}
    assert {place[1] for place in places[3:]} == {places[3][1]}
    assert places[0][3] < places[3][1]
    assert {(right - left, bottom - top) for left, top, right, bottom in places} == {(128, 128)}


@pytest.mark.parametrize(
    ("size", "num_columns", "wanted"),
    [
        ((1024, 1024), 2, (512, 512)),
        ((1024, 1024), 5, (384, 384)),
        ((1216, 832), 9, (256, 175)),
        ((512, 1024), 2, (256, 512)),
    ],
)
def test_the_more_cells_the_smaller_the_pictures_in_proportion(
    folder: Path, size: tuple[int, int], num_columns: int, wanted: tuple[int, int]
) -> None:
    axes = parsed_axes("seed=" + ",".join(map(str, range(num_columns))), None)
    left, top, right, bottom = extent(drawn(grid_of(folder, axes, size=size), folder), color_of(0))
    assert (right - left, bottom - top) == wanted


def test_every_column_and_line_has_its_heading(folder: Path) -> None:
    sheet = drawn(grid_of(folder), folder)
    for place in range(3):
        left, top, right, _ = extent(sheet, color_of(place))
        assert ink(sheet, (left - 16, top - 60, right, top - 20)) > 50
    for place in (0, 3):
        left, top, _, bottom = extent(sheet, color_of(place))
        assert ink(sheet, (40, top, left - 20, bottom)) > 50


def test_headings_say_their_values(folder: Path) -> None:
    one = drawn(grid_of(folder, parsed_axes("seed=1,2", None)), folder)
    left, top, right, _ = extent(one, color_of(0))
    heading = (left - 16, top - 60, right, top - 20)  # a cell is 160 wide, its picture 128
    other = drawn(grid_of(folder, parsed_axes("seed=3,2", None)), folder)
    assert one.crop(heading).tobytes() != other.crop(heading).tobytes()
    assert one.crop((0, 0, 700, top - 60)).tobytes() == other.crop((0, 0, 700, top - 60)).tobytes()  # the title


def test_the_prompt_is_the_title(folder: Path) -> None:
    sheets = [drawn(grid_of(folder, prompt=prompt), folder) for prompt in ("a cat", "a dog", "a very long one " * 99)]
    assert ink(sheets[0], (40, 40, 700, 70)) > 100
    assert sheets[0].tobytes() != sheets[1].tobytes()
    assert sheets[2].height == sheets[0].height + 2 * 31  # three lines, and then an ellipsis


def test_a_failed_cell_says_so_and_the_others_are_there(folder: Path) -> None:
    sheet = drawn(grid_of(folder, missing=1), folder)
    found = {color for _, color in sheet.getcolors(sheet.width * sheet.height) or []}
    assert color_of(1) not in found
    assert {color_of(place) for place in (0, 2, 3, 4, 5)} <= found
    assert (235, 142, 128) in found  # the ink of reasons


def test_headings_and_reasons_of_any_length_stay_on_the_sheet(folder: Path) -> None:
    axes = parsed_axes(f'prompt="{"x" * 9000}",{"word " * 500},猫', f"negative_prompt={'y' * 3000},none")
    sheet = drawn(grid_of(folder, axes, missing=0), folder)
    assert sheet.width < 1000
    assert sheet.height < 700


def test_the_title_of_prompts_on_an_axis_is_the_row_s_number(folder: Path) -> None:
    assert grid_of(folder, parsed_axes("prompt=a,b", None)).title == "Row 1"
    assert grid_of(folder).title == "a cat"


def test_what_is_shared_leaves_out_what_the_axes_decide(folder: Path) -> None:
    assert grid_of(folder).shared == "64×64 · euler · 40 steps · guidance 5"
    assert (
        grid_of(folder, parsed_axes("width=64,128", None)).shared
        == "euler · 40 steps · guidance 5 · refiner 0.8 · seed 7"
    )


def test_an_unreadable_picture_is_named(folder: Path) -> None:
    grid = grid_of(folder)
    (folder / "images" / "3.png").write_bytes(b"broken")
    with pytest.raises(StorageError, match=r"3\.png for the sheet"):
        grid_sheet(grid, folder / "sheet.png")


# The page


class Tags(HTMLParser):
    """What a browser would make of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(folder: Path, *grids: Grid, title: str = "prompts") -> Tags:
    assert grid_page(grids, folder / "index.html", title, grids[0].axes) == len(grids)
    return Tags((folder / "index.html").read_text(encoding="utf-8"))


def test_every_picture_leads_to_its_full_file_and_has_a_text(folder: Path) -> None:
    page = page_of(folder, grid_of(folder))
    links = [attributes["href"] for attributes in page.all("a") if (attributes["href"] or "").startswith("images/")]
    assert links == [attributes["src"] for attributes in page.all("img")] == [f"images/{n}.png" for n in range(6)]
    assert page.all("img")[0]["alt"] == "a cat (refiner.start=off, seed=1)"
    assert page.all("img")[4]["alt"] == "a cat (refiner.start=0.8, seed=2)"
    assert all((folder / (link or "")).is_file() for link in links)


def test_headings_are_headings_for_who_cannot_see(folder: Path) -> None:
    page = page_of(folder, grid_of(folder))
    assert [attributes.get("scope") for attributes in page.all("th")] == ["col"] * 3 + ["row"] * 2
    assert {"off", "0.8", "0.9", "1", "2", "seed", "a cat"} <= set(page.texts)


def test_hostile_texts_are_text(folder: Path) -> None:
    axes = parsed_axes('negative_prompt="<script>1</script>","""><svg onload=alert(1)>"', None)
    grid = grid_of(folder, axes, prompt=HOSTILE, missing=1)
    failed = Cell(grid.cells[1].values, grid.cells[1].spec, None, "failed: <script>2</script>")
    page = page_of(folder, Grid(1, axes, [grid.cells[0], failed]), title=HOSTILE)
    known = {"html", "head", "meta", "title", "style", "body", "h1", "p", "section", "h2", "a", "div", "table", "thead"}
    assert {tag for tag, _ in page.tags} == {*known, "tbody", "tr", "th", "td", "span", "img"}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert len(page.all("img")) == 1
    written = HOSTILE.replace("\u202e", "")
    assert page.texts.count(written) == 3  # tab, heading, prompt
    assert "failed: <script>2</script>" in page.texts
    assert "\u202e" not in (folder / "index.html").read_text()


def test_a_long_prompt_is_shortened_and_can_be_read_whole(folder: Path) -> None:
    prompt = "many cats " * 900
    page = page_of(folder, grid_of(folder, prompt=prompt))
    assert prompt.strip() in page.texts
    assert any(text.endswith("cats…") and len(text) <= 300 for text in page.texts)
    assert all(len(attributes["alt"] or "") < 200 for attributes in page.all("img"))


def test_the_page_asks_for_nothing_from_elsewhere(folder: Path) -> None:
    page = page_of(folder, grid_of(folder))
    text = (folder / "index.html").read_text()
    assert "://" not in text
    assert "@import" not in text
    assert not page.all("script")
    assert not page.all("link")
    assert "prefers-color-scheme: dark" in text


def test_a_page_that_fails_leaves_the_old_one_and_no_other_file(folder: Path) -> None:
    (folder / "index.html").write_text("old")

    def grids() -> Iterator[Grid]:
        yield grid_of(folder)
        raise StorageError("the disk is full")

    with pytest.raises(StorageError, match="the disk is full"):
        grid_page(grids(), folder / "index.html", "prompts", AXES)
    assert sorted(path.name for path in folder.iterdir()) == ["images", "index.html"]
    assert (folder / "index.html").read_text() == "old"


def test_a_page_that_cannot_be_written_is_a_storage_error(folder: Path) -> None:
    with pytest.raises(StorageError, match="cannot write the page"):
        grid_page([grid_of(folder)], folder / "nowhere" / "index.html", "prompts", AXES)
