"""`nightshift show`, on files as the worker writes them."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from nightshift import app
from tests.unit.test_finishing import finished, path_of, picture


def shown(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["show", *map(str, arguments)])


@pytest.fixture(scope="module")
def jpeg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prompt = "a \x1b[31mcat\n" + "and more " * 40
    return path_of(finished(tmp_path_factory.mktemp("images"), picture(512, 512), prompt=prompt,
                            refiner={"start_step": 30}, output={"format": "jpeg"}))  # fmt: skip


def test_a_file_is_shown_with_its_text_and_its_record(jpeg: Path) -> None:
    result = shown(jpeg)
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0].startswith(f"{jpeg}: jpeg, 512×512, ")
    assert "  source type  http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia" in lines
    assert "  watermark    48 of 48 bits were read back" in lines
    assert "  a \\x1b[31mcat" in lines  # and no escape sequence reaches the terminal
    assert any(line.startswith("  Steps: 40, Sampler: Euler,") for line in lines)
    fields = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines if line.startswith("  ") and " " in line[2:]}
    assert (fields["output.format"], fields["output.quality"], fields["refiner.start_step"]) == ("jpeg", "95", "30")
    assert (fields["pair"], fields["Category"]) == ("tiny", "cats")
    assert "refiner.start" not in fields  # it is not set
    assert fields["prompt"].endswith("... (371 characters; --json shows all)")


def test_a_file_says_nothing_of_a_refiner_that_had_no_part(tmp_path: Path) -> None:
    lines = shown(path_of(finished(tmp_path, picture(64, 64), refiner={"mode": "off"}))).output.splitlines()
    assert [line.split() for line in lines if line.startswith("  refiner.")] == [["refiner.mode", "off"]]


def test_as_json_it_is_whole(jpeg: Path) -> None:
    result = shown("--json", jpeg, jpeg)
    first, second = json.loads(result.stdout)
    assert first == second
    assert (first["format"], first["width"], first["size_bytes"]) == ("jpeg", 512, jpeg.stat().st_size)
    assert len(first["record"]["spec"]["prompt"]) == 371
    assert first["parameters"].startswith(first["record"]["spec"]["prompt"])


def test_what_cannot_be_shown_is_named_and_the_others_are_shown(jpeg: Path, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("no image")
    result = shown(tmp_path / "missing.png", jpeg, tmp_path / "note.txt", tmp_path)
    assert result.exit_code == 2
    assert result.stdout.startswith(f"{jpeg}: jpeg")
    assert result.stderr.count("nightshift: ") == 3
    assert "note.txt is no PNG, WebP or JPEG that can be read" in result.stderr


def test_a_picture_of_another_program_is_shown_as_far_as_it_says_something() -> None:
    result = shown("docs/contact-sheet.png")
    assert result.exit_code == 2
    assert "parameters\n  none\n" in result.stdout
    assert "docs/contact-sheet.png carries no record of Nightshift" in result.stderr
