"""Pictures and LoRAs, from a manifest to the images of a real farm."""

import hashlib
import json
import shutil
import signal
import sqlite3
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

from tests.acceptance.conftest import SMALL, Commands, wait_until

LAYER = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"


def fill_folders(home: Path) -> tuple[str, str]:
    """A picture and a LoRA for the tiny pair. Returns their sha256."""
    (home / "inputs" / "cats").mkdir(parents=True)
    (home / "loras").mkdir()
    picture, lora = home / "inputs" / "cats" / "tom.png", home / "loras" / "pixel-art.safetensors"
    random = np.random.default_rng(7)
    Image.fromarray(random.integers(0, 256, (64, 64, 3), np.uint8)).save(picture)
    halves = {"lora_A": (2, 64), "lora_B": (64, 2)}
    save_file(
        {f"{LAYER}.{half}.weight": random.normal(size=size).astype(np.float32) for half, size in halves.items()}, lora
    )
    return tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in (picture, lora))  # type: ignore[return-value]


def jobs(commands: Commands) -> list[tuple[int, str, str | None, str | None]]:
    """Number, state, error and image of each job."""
    with sqlite3.connect(commands.home / "ledger.sqlite3") as connection:
        return connection.execute(
            "SELECT jobs.number, jobs.state, jobs.error, images.uri FROM jobs LEFT JOIN results"
            " ON results.job_id = jobs.id LEFT JOIN images ON images.id = results.image_id ORDER BY jobs.number"
        ).fetchall()


def test_pictures_and_loras_reach_the_images(commands: Commands, tmp_path: Path) -> None:
    picture, lora = fill_folders(commands.home)
    manifest, out = tmp_path / "prompts.tsv", tmp_path / "out"
    header = "Prompt\tSeed\tinit_image\tstrength\tloras\n"
    rows = ["a cat\t1\t\t\t", "a cat\t1\tcats/tom.png\t0.5\t", "a cat\t1\t\t\tpixel-art:0.8",
            "a cat\t1\tcats/tom.png\t0.5\tpixel-art"]  # fmt: skip
    manifest.write_text(header + "\n".join(rows) + "\n")
    done = commands.run("render", manifest, *SMALL, "--set", "width=64", "--out", out)
    assert done.returncode == 0, done.stderr
    images = [Path(uri.removeprefix("file://")) for *_, uri in jobs(commands) if uri]
    assert len({path.read_bytes() for path in images}) == 4
    pixels = [np.asarray(Image.open(path)).tobytes() for path in images]
    assert len(set(pixels)) == 4

    record = json.loads(Image.open(images[3]).text["nightshift"])["spec"]  # type: ignore[attr-defined]
    assert record["init_image"] == picture
    assert record["loras"] == [{"name": "pixel-art", "sha256": lora, "weight": 1.0}]
    stored = {path.name for path in (commands.home / "images" / "inputs").rglob("*.*")}
    assert stored == {f"{picture}.png", f"{lora}.safetensors"}


def test_a_job_needs_the_store_alone_and_fails_alone_where_its_input_is_gone(
    commands: Commands, tmp_path: Path
) -> None:
    _, lora = fill_folders(commands.home)
    manifest = tmp_path / "prompts.tsv"
    manifest.write_text("Prompt\tinit_image\tstrength\tloras\na\tcats/tom.png\t0.5\t\nb\t\t\tpixel-art\nc\t\t\t\n")
    submitted = commands.run("submit", manifest, *SMALL, "--set", "width=64")
    assert submitted.returncode == 0, submitted.stderr
    for folder in ("inputs", "loras"):
        shutil.rmtree(commands.home / folder)
    next((commands.home / "images" / "inputs").rglob(f"{lora}.*")).unlink()
    up = commands.start("up")
    wait_until(lambda: {state for _, state, *_ in jobs(commands)} <= {"done", "failed"})
    up.send_signal(signal.SIGINT)
    assert up.wait(60) == 0
    states = {number: (state, error) for number, state, error, _ in jobs(commands)}
    assert (states[1][0], states[3][0]) == ("done", "done")
    assert states[2][0] == "failed"
    assert "LoRA 'pixel-art'" in (states[2][1] or "")


def test_a_path_out_of_the_folder_is_a_bad_row(commands: Commands, tmp_path: Path) -> None:
    fill_folders(commands.home)
    manifest = tmp_path / "prompts.tsv"
    manifest.write_text("Prompt\tInit image\tStrength\na cat\t../nightshift.toml\t0.5\n")
    done = commands.run("render", manifest, *SMALL)
    assert done.returncode == 2
    assert 'prompts.tsv:2: column "Init image": "../nightshift.toml": does not lie in' in done.stderr
    assert "Traceback" not in done.stderr
