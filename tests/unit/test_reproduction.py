"""The process behind `nightshift reproduce`, as far as it goes without rendering."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from nightshift import app
from schemas.errors import InputError
from schemas.output import Output
from tests.unit.test_finishing import finished, path_of, picture
from worker.image_files.encoding import decoded_file, encoded
from worker.reproduction import main, new_names

OUTPUTS = [Output(format="png"), Output(format="webp"), Output(format="webp", quality=80), Output(format="jpeg")]
PIXELS = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path / "home"))
    return tmp_path


def cut_off(folder: Path, name: str) -> Path:
    """A file with its record whole and half of its pixels."""
    content = path_of(finished(folder / "images", picture(64, 64), width=64, height=64)).read_bytes()
    path = folder / name
    path.write_bytes(content[: content.index(b"IDAT") + 500])
    return path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr("sys.argv", ["worker.reproduction", "--device", "cpu", *map(str, arguments)])
    return main()


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_picture_that_is_cut_off_is_refused_by_name(output: Output) -> None:
    content = encoded(PIXELS, output, 6)
    assert decoded_file(content, "x").shape == PIXELS.shape
    with pytest.raises(InputError, match=r"^fox\.png is damaged or cut off: its pixels cannot be decoded$"):
        decoded_file(content[: len(content) // 2], "fox.png")


def test_a_picture_that_is_cut_off_is_refused_before_the_pair_is_loaded(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = cut_off(home, "fox.png")
    monkeypatch.setattr("worker.reproduction.load_pair", lambda *_: pytest.fail("the pair was loaded"))
    assert run(monkeypatch, path) == 2
    assert capsys.readouterr().err == f"nightshift: {path} is damaged or cut off: its pixels cannot be decoded\n"


def test_an_image_that_fails_does_not_end_the_others(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [cut_off(home, "fox.png"), home / "missing.png", cut_off(home, "cat.png")]
    assert run(monkeypatch, *paths) == 2
    said = capsys.readouterr().err.splitlines()
    assert [path.name in line for path, line in zip(paths, said, strict=True)] == [True] * 3


def test_all_that_cannot_be_read_is_named_before_torch_is_imported(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.cli.subprocess.run", lambda *_, **__: pytest.fail("a process was started"))
    result = CliRunner().invoke(app, ["reproduce", "--device", "cpu", str(home / "a.png"), str(home), "1/1"])
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        f"nightshift: there is no file {home / 'a.png'}",
        f"nightshift: {home} is no file; name the images in it",
        "nightshift: there is no job 1/1: no such batch, or not so many jobs in it",
    ]


def test_new_files_of_one_name_are_numbered_and_none_has_a_recorded_files_name(tmp_path: Path) -> None:
    paths = [tmp_path / folder / name for folder in "ab" for name in ("fox.png", "fox-again-2.png", "1-2.png")]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert new_names([*map(str, paths), "1/2"]) == [
        "fox-again", "fox-again-2-again", "1-2-again",
        "fox-again-3", "fox-again-2-again-2", "1-2-again-2", "1-2-again-3",
    ]  # fmt: skip


def test_a_file_cannot_write_to_the_terminal_what_it_likes(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, cut_off(home, "\x1b[2Jpicture.png"))
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert r"\x1b[2Jpicture.png is damaged" in said
