"""`nightshift render`, from a manifest to images: on a machine where nothing runs, and beside workers that do."""

import hashlib
import json
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import func, select

from schemas.pair import BUILT_IN_PAIRS
from schemas.tables import Job, Pack, Result
from tests.acceptance.conftest import SMALL, Commands, Farm, fresh_home, twelve_small_jobs, wait_until
from tests.acceptance.front_door import FrontDoor


@dataclass(frozen=True)
class FirstRun:
    """What `nightshift render` did in a fresh home."""

    commands: Commands
    manifest: Path
    out: Path
    done: "subprocess.CompletedProcess[str]"


@pytest.fixture(scope="module")
def first_run(model_cache: Path, front_door: FrontDoor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FirstRun]:
    folder = tmp_path_factory.mktemp("first-run")
    manifest, out = twelve_small_jobs(folder), folder / "pictures"
    with fresh_home(model_cache, front_door) as commands:
        yield FirstRun(commands, manifest, out, commands.run("render", manifest, *SMALL, "--out", out))


def result_rows(commands: Commands) -> list[tuple]:
    """Those of the newest batch."""
    with sqlite3.connect(commands.home / "ledger.sqlite3") as connection:
        return connection.execute(
            "SELECT jobs.number, jobs.state, images.uri, images.sha256, images.size_bytes, results.provenance"
            " FROM jobs LEFT JOIN results ON results.job_id = jobs.id LEFT JOIN images ON images.id = results.image_id"
            " WHERE jobs.batch_id = (SELECT max(id) FROM batches) ORDER BY jobs.number"
        ).fetchall()


def attempts(farm: Farm) -> list[int]:
    """Of the newest batch's results: 0 where the image existed."""
    newest = select(Result.attempt).join(Job, Job.id == Result.job_id).where(Job.batch_id == farm.newest_batch())
    return [attempt for (attempt,) in farm.rows(newest.order_by(Job.number))]


def test_render_makes_one_recorded_image_for_each_row_and_leaves_nothing_running(first_run: FirstRun) -> None:
    assert first_run.commands.processes() == []
    assert first_run.done.returncode == 0, first_run.done.stderr
    assert "12/12" in first_run.done.stderr

    rows = result_rows(first_run.commands)
    assert [row[1] for row in rows] == ["done"] * 12
    for _, _, uri, sha256, size_bytes, _ in rows:
        content = Path(uri.removeprefix("file://")).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (sha256, size_bytes)
    steps = {(row[5] and json.loads(row[5])["base_steps"], json.loads(row[5])["refiner_steps"]) for row in rows}
    assert steps == {(4, 1), (5, 0)}

    stored = {path for path in (first_run.commands.home / "images").rglob("*") if path.is_file()}
    assert len(stored) == 12
    placed = sorted(path.name for path in first_run.out.iterdir())
    assert placed[0] == "000001-a-cat-number-0.png"
    assert placed[-1].startswith("contact-sheet")


def test_the_file_says_how_it_was_made(first_run: FirstRun) -> None:
    with Image.open(first_run.out / "000002-a-cat-number-1.png") as image:
        assert image.size == (128, 64)
        text = image.text
    assert text["parameters"].startswith("a cat, number 1\nSteps: 5, Sampler: Euler a, CFG scale: 5, Seed: ")
    assert "Refiner switch at: 0.8" in text["parameters"]
    assert "trainedAlgorithmicMedia" in text["XML:com.adobe.xmp"]
    record = json.loads(text["nightshift"])
    assert record["spec"]["prompt"] == "a cat, number 1"
    assert record["meta"] == {"Category": "cats"}
    assert record["provenance"]["base_steps"] == 4
    assert record["environment"]["license"] == "none (random weights)"
    assert {"torch", "diffusers", "nightshift"} <= record["environment"]["versions"].keys()


def test_a_worker_says_by_what_its_pair_is_defined(first_run: FirstRun) -> None:
    with sqlite3.connect(first_run.commands.home / "ledger.sqlite3") as connection:
        said = connection.execute("SELECT DISTINCT definition FROM workers").fetchall()
    assert said == [(BUILT_IN_PAIRS["tiny"].definition,)]


def test_the_same_manifest_gives_the_same_files_in_another_farm(first_run: FirstRun, warm_farm: Farm) -> None:
    assert warm_farm.run("render", "--again", first_run.manifest, *SMALL).returncode == 0
    assert [row[3] for row in result_rows(warm_farm)] == [row[3] for row in result_rows(first_run.commands)]


def test_a_manifest_that_comes_again_with_rows_added_renders_what_is_missing(warm_farm: Farm, tmp_path: Path) -> None:
    manifest = tmp_path / "animals.txt"
    manifest.write_text("an owl at dusk\na hare at dawn\na toad at noon\n")
    assert warm_farm.answer("render", manifest, *SMALL, "--limit", "2")["num_done"] == 2
    again = warm_farm.run("render", manifest, *SMALL)
    assert again.returncode == 0
    assert "2 images exist already (--again renders them anew)" in again.stderr
    assert attempts(warm_farm) == [0, 0, 1]
    anew = warm_farm.run("render", manifest, *SMALL, "--again")
    assert "exist already" not in anew.stderr
    assert attempts(warm_farm) == [1, 1, 1]


def test_json_on_stdout_is_one_document(warm_farm: Farm, manifest: Path) -> None:
    answer = warm_farm.answer("render", "--again", manifest, *SMALL, "--limit", "1")
    assert (answer["num_done"], answer["num_jobs"], answer["ended"]) == (1, 1, True)
    assert answer["warnings"] == []
    assert Path(answer["sheet"]).is_file()


def test_ctrl_c_keeps_what_is_left_and_up_goes_on(
    commands: Commands, forked: dict[str, str], manifest: Path, tmp_path: Path
) -> None:
    steps = ("--set", "num_inference_steps=15", "--out", tmp_path / "out")
    render = commands.start("render", manifest, *SMALL, *steps, **forked, NIGHTSHIFT_PACK_SIZE="1")
    wait_until(lambda: "done" in {row[1] for row in rows_so_far(commands)})
    render.send_signal(signal.SIGINT)
    assert render.wait(60) == 130
    assert "goes on with it" in commands.log("render")
    states = [row[1] for row in result_rows(commands)]
    assert len(list((tmp_path / "out").iterdir())) == states.count("done")
    assert set(states) == {"done", "pending", "queued"}  # and none is left running
    assert commands.processes() == []

    up = commands.start("up", **forked, NIGHTSHIFT_WEB_PORT="0")
    wait_until(lambda: {row[1] for row in result_rows(commands)} == {"done"})
    wait_until(lambda: "the web page is at http://127.0.0.1:" in commands.log("web"))
    up.send_signal(signal.SIGINT)
    assert up.wait(60) == 0
    assert commands.processes() == []


def test_sigterm_is_as_ctrl_c_and_leaves_workers_alone_that_render_did_not_start(
    warm_farm: Farm, manifest: Path, tmp_path: Path
) -> None:
    running, others = warm_farm.worker_pids(), warm_farm.newest_batch()
    steps = ("--set", "num_inference_steps=30", "--out", tmp_path / "out")
    render = warm_farm.start("render", "--again", manifest, *SMALL, *steps, NIGHTSHIFT_PACK_SIZE="1")
    wait_until(lambda: warm_farm.newest_batch() > others and "done" in {row[1] for row in result_rows(warm_farm)})
    render.send_signal(signal.SIGTERM)
    assert render.wait(60) == 130
    assert "goes on with it" in warm_farm.log("render")
    assert {row[1] for row in result_rows(warm_farm)} >= {"done", "pending"}
    assert list((tmp_path / "out").iterdir())
    assert warm_farm.worker_pids() == running


def rows_so_far(commands: Commands) -> list[tuple]:
    try:
        return result_rows(commands)
    except sqlite3.OperationalError:  # there is no ledger yet, or none with tables
        return []


def test_a_pair_that_does_not_load_is_said_in_one_sentence(
    commands: Commands, forked: dict[str, str], manifest: Path
) -> None:
    (commands.home / "nightshift.toml").write_text('[pairs.broken]\nbase = { source = "/no/such/folder" }\n')
    commands.environment |= forked
    done = commands.run("render", manifest, *SMALL, "--pair", "broken")
    assert done.returncode == 2
    assert "broken" in done.stderr
    assert "/no/such/folder" in done.stderr
    assert "Traceback" not in done.stderr
    assert commands.processes() == []


def test_bad_rows_are_named_and_nothing_is_enqueued(commands: Commands, tmp_path: Path) -> None:
    bad = tmp_path / "bad.tsv"
    bad.write_text("Prompt\tWidth\na cat\t64\na dog\t1001\n\t64\n")
    done = commands.run("render", bad)
    assert done.returncode == 2
    assert 'bad.tsv:3: column "Width": "1001": is not divisible by 8' in done.stderr
    assert "bad.tsv:4" in done.stderr
    assert result_rows(commands) == []
    assert commands.answer("status")["batches"] == []


def test_skip_invalid_renders_the_good_rows_and_lists_the_others(warm_farm: Farm, tmp_path: Path) -> None:
    bad = tmp_path / "bad.tsv"
    bad.write_text("Prompt\tWidth\na cat\t64\na dog\t1001\n")
    done = warm_farm.run("render", "--again", bad, *SMALL, "--skip-invalid")
    assert done.returncode == 0, done.stderr
    assert "1 invalid row left out" in done.stderr
    listed = warm_farm.home / "invalid" / f"batch-{warm_farm.newest_batch()}.txt"
    assert "bad.tsv:3" in listed.read_text()
    assert len(result_rows(warm_farm)) == 1


def test_the_same_picture_comes_in_every_format_with_the_same_metadata(warm_farm: Farm, tmp_path: Path) -> None:
    outputs = {"png": "", "webp": "", "jpeg": "90"}
    manifest, out = tmp_path / "formats.tsv", tmp_path / "pictures"
    rows = [f"a fox, 雪\t256\t256\t4\t{image_format}\t{quality}" for image_format, quality in outputs.items()]
    header = "Prompt\tWidth\tHeight\tnum_inference_steps\toutput.format\toutput.quality"
    manifest.write_text("\n".join([header, *rows, ""]))
    # One image a pass: on two cores, the place in a pass of three moves a float32's last bits.
    assert warm_farm.run("render", "--again", manifest, "--out", out, NIGHTSHIFT_PACK_SIZE="1").returncode == 0

    placed = [out / f"{number:06}-a-fox.{suffix}" for number, suffix in enumerate(("png", "webp", "jpg"), 1)]
    stored = [(row[3], row[4]) for row in result_rows(warm_farm)]
    contents = [path.read_bytes() for path in placed]
    assert [(hashlib.sha256(content).hexdigest(), len(content)) for content in contents] == stored

    png, webp, jpeg = (np.asarray(Image.open(path)).astype(int) for path in placed)
    assert np.array_equal(png, webp)
    assert 0 < np.abs(png - jpeg).mean() < 3  # of 255

    shown = warm_farm.answer("show", *placed)
    assert [file["format"] for file in shown] == list(outputs)
    assert len({file["parameters"] for file in shown}) == 1
    assert {file["digital_source_type"].rpartition("/")[2] for file in shown} == {"trainedAlgorithmicMedia"}
    specs = [file["record"]["spec"] for file in shown]
    assert [spec.pop("output") for spec in specs] == [
        {"format": "png", "quality": None}, {"format": "webp", "quality": None}, {"format": "jpeg", "quality": 90},
    ]  # fmt: skip
    assert specs[0] == specs[1] == specs[2]


def test_jobs_that_the_pair_cannot_render_fail_alone_and_cost_their_neighbours_nothing(
    warm_farm: Farm, tmp_path: Path
) -> None:
    manifest = tmp_path / "prompts.jsonl"
    rows = [{}, {"clip_skip": 9}, {"prompt": "a cat.swap(dog)", "prompt_syntax": "compel"}, {}]
    manifest.write_text("".join(json.dumps({"prompt": "a cat", "width": 64, **row}) + "\n" for row in rows))
    done = warm_farm.run("render", "--again", manifest, *SMALL)
    assert done.returncode == 1
    assert "1 failed: clip_skip: 9: pair 'tiny' has layers for 1 at the most" in done.stdout
    assert "1 failed: prompt in compel syntax, character 6: " in done.stdout
    mine = warm_farm.newest_batch()
    jobs = warm_farm.rows(select(Job.state, Job.isolated).where(Job.batch_id == mine).order_by(Job.number))
    assert jobs == [("done", False), ("failed", False), ("failed", False), ("done", False)]
    assert warm_farm.rows(select(func.count()).select_from(Pack).where(Pack.batch_id == mine)) == [(1,)]
