"""What the real commands say about sizes, and about rows that are unusual and rendered all the same."""

from pathlib import Path

import pytest

from tests.acceptance.conftest import Commands

SIZE = "640×480 is 0.31 megapixels; SDXL was trained at about 1.05"


@pytest.fixture
def unusual(tmp_path: Path) -> Path:
    path = tmp_path / "unusual.tsv"
    path.write_text("Prompt\tWidth\tHeight\tRefiner.start\na\t\t\t\nb\t640\t480\t\nc\t512\t512\t0.5\n")
    return path


def test_submit_warns_of_each_kind_once_and_accepts_the_rows(commands: Commands, unusual: Path) -> None:
    done = commands.run("submit", unusual, "--pair", "sdxl")
    assert done.returncode == 0
    assert done.stdout == "batch 1: 3 jobs accepted (unusual, sdxl)\n"
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert [line.partition(";")[0] for line in warnings] == [
        "warning: 2 rows (first: line 3): 640×480 is 0.31 megapixels",
        "warning: line 4: the refiner starts at 0.5 of the noise schedule",
    ]


def test_submit_says_them_to_programs_too(commands: Commands, unusual: Path) -> None:
    first, second = commands.answer("submit", unusual, "--pair", "sdxl")["warnings"]
    assert (first["code"], first["num_rows"], first["first_line"]) == ("pixel_count", 2, 3)
    assert first["sentence"].startswith(SIZE)
    assert second["code"] == "early_handoff"


def test_random_weights_are_warned_of_nothing(commands: Commands, unusual: Path) -> None:
    assert "warning" not in commands.run("submit", unusual, "--pair", "tiny").stderr
    assert commands.answer("submit", unusual, "--pair", "tiny")["warnings"] == []


def test_a_refused_manifest_is_not_warned_of(commands: Commands, unusual: Path) -> None:
    unusual.write_text(unusual.read_text() + "d\t7\t7\t\n")
    done = commands.run("submit", unusual, "--pair", "sdxl")
    assert done.returncode == 2
    assert "warning" not in done.stderr


def test_the_table_of_sizes_fits_a_terminal(commands: Commands) -> None:
    done = commands.run("sizes", COLUMNS="80")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) < 24
    [line] = [line for line in lines if "16:9" in line]
    assert line.split() == ["1344", "×", "768", "1.75", "16:9", "768", "×", "1344", "0.57", "9:16", "1.03"]


def test_the_sizes_are_data_too(commands: Commands) -> None:
    sizes = commands.answer("sizes")
    assert len(sizes) == 41
    assert {"width": 832, "height": 1216, "aspect_ratio": "2:3", "ratio": 0.6842, "megapixels": 1.012} in sizes


def test_submit_says_that_a_deadline_has_passed_and_takes_the_rows(commands: Commands, unusual: Path) -> None:
    done = commands.run("submit", unusual, "--pair", "tiny", "--deadline", "2026-01-02T07:00Z")
    assert done.returncode == 0
    [line] = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert line.startswith("warning: batch 1 is late: its deadline was Fri 2026-01-02 07:00")
    done = commands.run("submit", unusual, "--pair", "tiny", "--deadline", "2126-01-02T07:00Z")
    assert "warning" not in done.stderr
