"""`nightshift reproduce`: images that a farm has rendered, made again by another process."""

import hashlib
import json
from pathlib import Path

from schemas.schedulers import SCHEDULERS
from tests.acceptance.conftest import Commands, Farm

FIELDS = ("--set", "num_inference_steps=2", "--set", "refiner.start_step=1")


def rendered(farm: Farm, folder: Path, rows: list[dict[str, object]]) -> Path:
    """Returns the folder with copies of the rows' images."""
    manifest = folder / "prompts.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = farm.run("render", "--again", manifest, *FIELDS, "--out", folder / "out")
    assert done.returncode == 0, done.stderr
    return folder / "out"


def test_what_a_farm_rendered_is_made_again_byte_for_byte_with_all_schedulers(warm_farm: Farm, tmp_path: Path) -> None:
    small = {"prompt": "a fox", "width": 64, "height": 64}
    rows = [{**small, "scheduler": name, "output": {"format": "webp"}} for name in SCHEDULERS]
    out = rendered(warm_farm, tmp_path, [*rows, {**small, "seed": 1}, {**small, "seed": 2}])  # two of one pass
    batch = warm_farm.newest_batch()
    jobs = [f"{batch}/{number}" for number in range(1, len(SCHEDULERS) + 3)]
    done = warm_farm.run("reproduce", *jobs, "--out", tmp_path / "again")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"job {job}: identical file" for job in jobs]
    (first,) = out.glob("000001-*.webp")
    assert (tmp_path / "again" / f"{batch}-1-again.webp").read_bytes() == first.read_bytes()

    (stored,) = warm_farm.home.glob(f"images/*/*/{hashlib.sha256(first.read_bytes()).hexdigest()}.webp")
    (second,) = out.glob("000002-*.webp")
    stored.write_bytes(second.read_bytes())
    done = warm_farm.run("reproduce", jobs[0])
    assert (done.returncode, done.stderr) == (1, "")
    verdict, reason = done.stdout.splitlines()
    assert verdict.startswith(f"job {jobs[0]}: different pixels")
    assert reason == (
        "  the file in the store is not the recorded one: it was changed since; "
        "the image made again has the recorded pixels"
    )


def test_a_file_is_enough_and_a_changed_one_is_seen(warm_farm: Farm, commands: Commands, tmp_path: Path) -> None:
    from farm.image_file import read_image_file
    from schemas.output import Output
    from worker.image_files.containers import Metadata, with_metadata
    from worker.image_files.encoding import decoded, encoded

    marked = {"prompt": "a fox", "width": 256, "height": 256, "mood": "calm"}
    (first,) = rendered(warm_farm, tmp_path, [marked]).glob("000001-*.png")
    pixels = decoded(first.read_bytes()).copy()
    pixels[:8, :8] ^= 1
    record = read_image_file(first).nightshift_record()
    record["environment"]["versions"]["torch"] = "1.0"
    changed, stripped = tmp_path / "changed.png", tmp_path / "stripped.png"
    changed.write_bytes(with_metadata(encoded(pixels, Output(), 6), Output(), Metadata("", record, "")))
    stripped.write_bytes(encoded(pixels, Output(), 6))

    # in a home without a ledger: the file's own metadata is enough
    done = commands.run("reproduce", stripped, first, "1/1", changed, "--json")
    assert done.returncode == 2
    same, other = (json.loads(line) for line in done.stdout.splitlines())
    assert same["verdict"] == "identical file"
    assert (other["verdict"], other["largest"], other["share"]) == ("different pixels", 1, 64 / 256**2)
    (torch_version,) = other["otherwise"]
    assert torch_version.startswith("torch: 1.0 then, ")
    refused, missing = done.stderr.splitlines()
    assert "stripped.png carries no record of Nightshift" in refused
    assert "there is no job 1/1" in missing
