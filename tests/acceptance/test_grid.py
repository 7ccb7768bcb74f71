"""`nightshift grid`, from a manifest to sheets, a page and the full images."""

import hashlib
import json
import signal
from pathlib import Path

import pytest
from PIL import Image

from tests.acceptance.conftest import SMALL, Commands, Farm, wait_until
from tests.acceptance.test_render import result_rows

AXES = ("--x", "refiner.start=off,0.8", "--y", "seed=1,2")
#: How many images shared a forward pass stands in each file.
ALONE = {"NIGHTSHIFT_PACK_SIZE": "1"}
SIZE = ("--set", "width=64", *SMALL)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.tsv"
    path.write_text("Prompt\trefiner.aesthetic_score\na cat\t\n<script>alert(1)</script> & a dog\t7\n")
    return path


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_grid_has_a_sheet_for_each_row_a_page_and_the_images_that_render_makes(
    warm_farm: Farm, prompts: Path, tmp_path: Path
) -> None:
    out, running = tmp_path / "grids", warm_farm.processes()
    done = warm_farm.run("grid", "--again", prompts, *AXES, *SIZE, "--out", out, **ALONE)
    assert done.returncode == 0, done.stderr
    assert "8/8" in done.stderr
    assert warm_farm.processes() == running

    assert sorted(path.name for path in out.iterdir()) == ["images", "index.html", "row-0001.png", "row-0002.png"]
    images = {path.name: sha256_of(path) for path in (out / "images").iterdir()}
    assert len(images) == 8
    pairs = [("off-y1-seed-1", "x2-refiner-start-0-8-y1-seed-1"), ("off-y2-seed-2", "x2-refiner-start-0-8-y2-seed-2")]
    for row in ("row-0001", "row-0002"):
        for base, refined in pairs:
            assert images[f"{row}-x1-refiner-start-{base}.png"] != images[f"{row}-{refined}.png"]
    page = (out / "index.html").read_text()
    assert page.count("<img ") == 8
    assert "<script" not in page
    for name in images:
        assert f'href="images/{name}"' in page
    for number in (1, 2):
        with Image.open(out / f"row-000{number}.png") as sheet:
            assert sheet.width >= 720

    plain = warm_farm.run("render", "--again", prompts, "--set", "seed=1", "--set", "refiner.start=0.8", *SIZE, **ALONE)
    assert plain.returncode == 0, plain.stderr
    assert [row[3] for row in result_rows(warm_farm)] == [
        images[f"row-000{row}-x2-refiner-start-0-8-y1-seed-1.png"] for row in (1, 2)
    ]


def test_a_failed_cell_is_on_its_sheet_and_the_exit_code_says_so(
    warm_farm: Farm, prompts: Path, tmp_path: Path
) -> None:
    # 0.999 leaves the refiner none of five steps, which only the scheduler's timesteps can tell.
    axes = ("--x", "refiner.start=0.8,0.999", "--limit", "1", "--out", tmp_path / "grids")
    done = warm_farm.run("grid", "--again", prompts, *axes, *SIZE, "--json")
    assert done.returncode == 1, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["num_done"], answer["num_failed"], answer["num_sheets"]) == (1, 1, 1)
    page = Path(answer["page"]).read_text()
    assert page.count("<img ") == 1
    assert "failed: refiner.start: 0.999 of 5 steps leaves" in page
    assert (tmp_path / "grids" / "row-0001.png").is_file()


def test_ctrl_c_keeps_the_sheets_so_far(warm_farm: Farm, prompts: Path, tmp_path: Path) -> None:
    others = warm_farm.newest_batch()
    # Slow enough that the first row's four cells, which the worker has already, are not done before the sheets are.
    steps = ("--set", "num_inference_steps=150", "--out", tmp_path / "grids")
    grid = warm_farm.start("grid", "--again", prompts, *AXES, *SIZE, *steps, NIGHTSHIFT_PACK_SIZE="1")
    wait_until(lambda: warm_farm.newest_batch() > others and "done" in {row[1] for row in result_rows(warm_farm)})
    grid.send_signal(signal.SIGINT)
    assert grid.wait(60) == 130
    assert "sheets so far: 1" in warm_farm.log("grid")
    assert "not rendered yet" in (tmp_path / "grids" / "index.html").read_text()
    assert (tmp_path / "grids" / "row-0001.png").is_file()


def test_bad_cells_are_named_and_nothing_is_enqueued(commands: Commands, prompts: Path) -> None:
    done = commands.run("grid", prompts, "--x", "refiner.start_step=off,4,40", *SIZE)
    assert done.returncode == 2
    assert "prompts.tsv:2: axis refiner.start_step=40: leaves 40 of 5 steps to the base" in done.stderr
    assert "prompts.tsv:3: axis refiner.start_step=40" in done.stderr
    assert "Traceback" not in done.stderr
    assert commands.answer("status")["batches"] == []


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--x", "stepz=1"), "there is no field 'stepz'"),
        (("--x", "seed=1,2", "--y", "seed=3"), "are the same field"),
        (("--x", "seed=1,2,3", "--max-jobs", "5"), "the manifest would be 6 jobs, and --max-jobs is 5"),
    ],
)
def test_what_is_wrong_with_the_axes_is_one_sentence(
    commands: Commands, prompts: Path, options: tuple[str, ...], sentence: str
) -> None:
    done = commands.run("grid", prompts, *options)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
