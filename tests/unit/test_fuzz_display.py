"""Whatever a prompt, a name, an error says: the terminal, the sheet and the page show it, and it does nothing there."""

import io
import json
import unicodedata
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from typer.testing import CliRunner

from farm import batches, ledger
from farm.retries import Failure
from nightshift import app
from producer.expanding.axes import Axes, Axis, AxisValue
from producer.reports.caption import drawable, wrapped
from producer.reports.grid import Cell, Grid
from producer.reports.grid_page import grid_page
from producer.reports.pictures import CAPTION_FACE
from producer.reports.sheet import SheetPicture, contact_sheet
from schemas.errors import NightshiftError, StorageError
from schemas.printable import json_printable, printable, printable_start, shown
from schemas.spec import JobSpec
from tests.integration.ledger_farm import claimed_pack, new_ledger, new_worker, staged
from tests.unit.hostile import STORABLE_CHARACTERS as ALL_HOSTILE
from tests.unit.hostile import any_text, json_values, some_text, storable_text

#: drawing a sheet takes a tenth of a second
few = settings(max_examples=max(settings.default.max_examples // 4, 1))
PICTURE = io.BytesIO()
Image.new("RGB", (64, 64), (255, 0, 0)).save(PICTURE, "PNG")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("display")


# The terminal


@given(any_text)
def test_nothing_printable_moves_a_cursor_or_turns_a_line(text: str) -> None:
    assert printable(text).isprintable()
    assert printable(printable(text)) == printable(text)
    assert len(printable_start(text * 50, 60)) < 60 * 10 + 30


@given(json_values)
def test_any_value_is_shown_printable_and_short(value: object) -> None:
    assert shown(value).isprintable()
    assert len(shown(value)) < 100


@given(storable_text)
def test_json_for_the_terminal_is_printable_and_the_same_json(text: str) -> None:
    said = json_printable(json.dumps({text: [text]}, ensure_ascii=False))
    assert said.isprintable()
    assert json.loads(said) == {text: [text]}


HOSTILE_NAME = f"[bold]:cat: {ALL_HOSTILE}"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a farm with a batch whose name and whose failure say everything that does harm."""
    home = tmp_path_factory.mktemp("home")
    with closing(new_ledger(f"sqlite:///{home / 'ledger.sqlite3'}")) as database:
        batch_id = batches.create_batch(database, HOSTILE_NAME, "tiny", 5)
        ledger.stage_jobs(database, batch_id, [staged(1)])
        batches.open_batch(database, batch_id)
        pack = claimed_pack(database, batch_id, new_worker(database))
        failure = Failure("render", ALL_HOSTILE, retryable=False)
        ledger.fail_jobs(database, pack, [pack.jobs[0].id], failure, max_attempts=1)
    return home


@pytest.mark.parametrize(
    "arguments", [["status"], ["status", "1"], ["watch"], ["status", "--json"], ["status", ALL_HOSTILE]]
)
def test_no_command_sends_to_the_terminal_what_a_name_or_a_failure_says(
    home: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(home))
    monkeypatch.setenv("COLUMNS", "2000")
    result = CliRunner().invoke(app, arguments)
    said = result.output + (str(result.exception) if isinstance(result.exception, NightshiftError) else "")
    assert_lines_are_printable(said)
    if arguments == ["watch"]:
        assert printable(HOSTILE_NAME) in said
    if arguments == ["status"]:  # which folds long names into a column
        assert printable(HOSTILE_NAME)[:11] in said


def assert_lines_are_printable(said: str) -> None:
    assert said
    assert [line for line in said.split("\n") if not line.isprintable()] == []


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_file_is_shown_without_what_its_texts_would_do_to_a_terminal(tmp_path: Path, options: list[str]) -> None:
    info = PngInfo()
    info.add_itxt("parameters", ALL_HOSTILE)
    info.add_itxt("nightshift", json.dumps({"nightshift": 1, "spec": {"prompt": ALL_HOSTILE, ALL_HOSTILE: 1}}))
    path = tmp_path / f"a{ALL_HOSTILE.replace('/', '')[:60]}.png"
    Image.new("RGB", (8, 8)).save(path, "PNG", pnginfo=info)
    result = CliRunner().invoke(app, ["show", *options, str(path)])
    assert result.exit_code == 0
    assert_lines_are_printable(result.output)
    if options:
        assert json.loads(result.stdout)[0]["parameters"] == ALL_HOSTILE  # and it is all there


# The sheet


@given(any_text)
def test_what_is_drawn_has_no_control_character_and_no_mark_of_direction(text: str) -> None:
    assert not {unicodedata.category(c) for c in drawable(text)} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    for line in wrapped(text * 5, CAPTION_FACE, 320, 3):
        assert CAPTION_FACE.width(line) <= 320


@few
@given(caption=any_text, detail=any_text, title=any_text)
def test_a_sheet_is_drawn_whatever_its_texts_say(folder: Path, caption: str, detail: str, title: str) -> None:
    contact_sheet([SheetPicture(PICTURE.getvalue, caption, detail)], folder / "sheet.png", title)
    with Image.open(folder / "sheet.png") as sheet:
        assert sheet.format == "PNG"


def test_a_picture_that_cannot_be_drawn_is_named_in_a_printable_sentence(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as error:
        contact_sheet([SheetPicture(lambda: b"\x89PNG", ALL_HOSTILE, "")], tmp_path / "sheet.png", "demo")
    assert str(error.value).isprintable()


# The page

_TAGS = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "section", "a", "div", "table", "thead",
         "tbody", "tr", "th", "td", "span", "img", "details", "summary"}  # fmt: skip
_DIRECTIONS = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class Elements(HTMLParser):
    """Every element of a page with its attributes, and what stands inside of those that isolate their text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[str] = []
        self._in_heading = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._in_heading = tag == "h2"

    def handle_data(self, data: str) -> None:
        if self._in_heading:
            self.headings.append(data)
            self._in_heading = False


def page_of(folder: Path, prompt: str, value: str, reason: str) -> str:
    axes = Axes(Axis("negative_prompt", (AxisValue("negative_prompt", value), AxisValue("negative_prompt", "x"))))
    spec = JobSpec.parse({"prompt": prompt, "seed": 7})
    cells = [Cell(axes.x.values[:1], spec, folder / "a.png"), Cell(axes.x.values[1:], spec, None, reason)]
    grid_page([Grid(1, axes, cells)], folder / "page.html", prompt, axes)
    return (folder / "page.html").read_text(encoding="utf-8")


@given(prompt=some_text, value=any_text, reason=any_text)
def test_no_text_of_a_page_becomes_an_element_or_reaches_past_its_own(
    folder: Path, prompt: str, value: str, reason: str
) -> None:
    page = page_of(folder, prompt, value, reason)
    elements = Elements(page)
    assert {tag for tag, _ in elements.found} <= _TAGS
    names = {name for _, attributes in elements.found for name in attributes}
    assert not [name for name in names if name.startswith("on")]
    links = [
        attributes.get("href") or attributes.get("src") for tag, attributes in elements.found if tag in ("a", "img")
    ]
    assert set(links) <= {"images/a.png", "row-0001.png"}
    assert not [c for c in page if (unicodedata.category(c) == "Cc" and c != "\n") or c in _DIRECTIONS]
    assert len([tag for tag, _ in elements.found]) == len(
        [t for t, _ in Elements(page_of(folder, "a", "b", "c")).found]
    )


def test_texts_of_a_page_are_isolated_from_what_stands_beside_them(folder: Path) -> None:
    elements = Elements(page_of(folder, "\u05e9\u05dc\u05d5\u05dd", "\u05d0", "\u0627")).found
    isolating = [tag for tag, attributes in elements if attributes.get("dir") == "auto"]
    assert isolating.count("span") == 2  # the headings of the columns
    assert {"h1", "h2", "div"} <= set(isolating)
