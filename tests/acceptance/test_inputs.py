"""Pictures and LoRAs, from a manifest to the images of a real farm."""

import hashlib
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import save_file
from sqlalchemy import select

from schemas.tables import Image as StoredImage
from schemas.tables import Job, Result
from tests.acceptance.conftest import SMALL, Commands, Farm, wait_until
from tests.acceptance.test_bad_input import DEAD_REDIS

LAYER = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"


def fill_folders(home: Path, seed: int) -> tuple[str, str]:
    """A picture and a LoRA for the tiny pair, as no other seed gives them. Returns their sha256."""
    (home / "inputs" / "cats").mkdir(parents=True, exist_ok=True)
    (home / "loras").mkdir(exist_ok=True)
    picture, lora = home / "inputs" / "cats" / "tom.png", home / "loras" / "pixel-art.safetensors"
    random = np.random.default_rng(seed)
    Image.fromarray(random.integers(0, 256, (64, 64, 3), np.uint8)).save(picture)
    halves = {"lora_A": (2, 64), "lora_B": (64, 2)}
    save_file(
        {f"{LAYER}.{half}.weight": random.normal(size=size).astype(np.float32) for half, size in halves.items()}, lora
    )
    return tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in (picture, lora))  # type: ignore[return-value]


def stored_inputs(farm: Farm) -> set[str]:
    return {path.name for path in (farm.home / "images" / "inputs").rglob("*.*")}


def jobs(farm: Farm) -> list[Any]:
    """Number, state, error and image of each job of the newest batch."""
    results = select(Job.number, Job.state, Job.error, StoredImage.uri).outerjoin(Result, Result.job_id == Job.id)
    images = results.outerjoin(StoredImage, StoredImage.id == Result.image_id)
    return farm.rows(images.where(Job.batch_id == farm.newest_batch()).order_by(Job.number))


def test_pictures_and_loras_reach_the_images(warm_farm: Farm, tmp_path: Path) -> None:
    picture, lora = fill_folders(warm_farm.home, 1)
    before = stored_inputs(warm_farm)
    manifest, out = tmp_path / "prompts.tsv", tmp_path / "out"
    header = "Prompt\tSeed\tinit_image\tstrength\tloras\n"
    rows = ["a cat\t1\t\t\t", "a cat\t1\tcats/tom.png\t0.5\t", "a cat\t1\t\t\tpixel-art:0.8",
            "a cat\t1\tcats/tom.png\t0.5\tpixel-art"]  # fmt: skip
    manifest.write_text(header + "\n".join(rows) + "\n")
    done = warm_farm.run("render", "--again", manifest, *SMALL, "--set", "width=64", "--out", out)
    assert done.returncode == 0, done.stderr
    images = [Path(uri.removeprefix("file://")) for *_, uri in jobs(warm_farm)]
    assert len({path.read_bytes() for path in images}) == 4
    pixels = [np.asarray(Image.open(path)).tobytes() for path in images]
    assert len(set(pixels)) == 4

    record = json.loads(Image.open(images[3]).text["nightshift"])["spec"]  # type: ignore[attr-defined]
    assert record["init_image"] == picture
    assert record["loras"] == [{"name": "pixel-art", "sha256": lora, "weight": 1.0}]
    assert stored_inputs(warm_farm) - before == {f"{picture}.png", f"{lora}.safetensors"}


def test_a_job_needs_the_store_alone_and_fails_alone_where_its_input_is_gone(warm_farm: Farm, tmp_path: Path) -> None:
    _, lora = fill_folders(warm_farm.home, 2)
    manifest = tmp_path / "prompts.tsv"
    manifest.write_text("Prompt\tinit_image\tstrength\tloras\na\tcats/tom.png\t0.5\t\nb\t\t\tpixel-art\nc\t\t\t\n")
    # Without Redis no worker hears of the batch yet.
    submitted = warm_farm.run("submit", "--again", manifest, *SMALL, "--set", "width=64", **DEAD_REDIS)
    assert "is safe in the ledger" in submitted.stderr
    for folder in ("inputs", "loras"):
        shutil.rmtree(warm_farm.home / folder)
    next((warm_farm.home / "images" / "inputs").rglob(f"{lora}.*")).unlink()
    dispatcher = warm_farm.start("dispatcher")
    wait_until(lambda: {job.state for job in jobs(warm_farm)} <= {"done", "failed"})
    dispatcher.send_signal(signal.SIGTERM)
    assert dispatcher.wait(60) == 0
    first, second, third = jobs(warm_farm)
    assert (first.state, third.state) == ("done", "done")
    assert second.state == "failed"
    assert "LoRA 'pixel-art'" in second.error


def test_a_path_out_of_the_folder_is_a_bad_row(commands: Commands, tmp_path: Path) -> None:
    fill_folders(commands.home, 3)
    manifest = tmp_path / "prompts.tsv"
    manifest.write_text("Prompt\tInit image\tStrength\na cat\t../nightshift.toml\t0.5\n")
    done = commands.run("render", manifest, *SMALL)
    assert done.returncode == 2
    assert 'prompts.tsv:2: column "Init image": "../nightshift.toml": does not lie in' in done.stderr
    assert "Traceback" not in done.stderr
