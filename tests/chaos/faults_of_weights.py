"""Faults of weight files: cut short, and changed under the same name. Each has a pair of its own in the settings.

Both are the tiny base without a refiner, so what they render is known from the reference.
"""

import os
import random
import shutil
from pathlib import Path

from tests.chaos.farm import Farm, json_in, wait_for

_UNET = Path("unet", "diffusion_pytorch_model.safetensors")
_WAIT_SECONDS = 60.0
_CHANGED_BYTES = 65_536


def truncated(farm: Farm, chance: random.Random, short: bool) -> None:
    """The worker refuses, and says why; the jobs wait until the file is whole."""
    pair, folder = "truncated", _weights(farm, "truncated")
    whole = (folder / _UNET).read_bytes()
    _replace(folder / _UNET, whole[: chance.randrange(1, len(whole))])
    batch = farm.submit(farm.rows_without_refiner(2), "--pair", pair)
    code, output = farm.command("worker", "--pair", pair, "--devices", "cpu", may_fail=True)
    assert code == 2, f"a worker with a truncated file ended with {code}: {output}"
    sentences = [line for line in output.splitlines() if line.startswith("nightshift: pair 'truncated': ")]
    assert len(sentences) == 1, f"a worker with a truncated file said {output}"
    _, status = farm.command("status", "--json")
    assert pair in json_in(status)["unserved_pairs"], "nobody serves the pair, and nobody says so"
    assert _states(farm, batch) <= {"pending", "queued"}, "a job was harmed by a worker that could not load"
    _replace(folder / _UNET, whole)
    _render(farm, pair, batch)


def changed(farm: Farm, chance: random.Random, short: bool) -> None:
    """Two workers of one pair, before and after: what they render is not confused."""
    pair, folder = "changing", _weights(farm, "changing")
    _render(farm, pair, farm.submit(farm.rows_without_refiner(2), "--pair", pair))
    whole = (folder / _UNET).read_bytes()
    _replace(folder / _UNET, whole[:-_CHANGED_BYTES] + bytes(_CHANGED_BYTES))
    rows = farm.rows_without_refiner(2)
    farm.of_other_weights |= {row["prompt"] for row in rows}
    _render(farm, pair, farm.submit(rows, "--pair", pair))
    fingerprints = farm.ask(
        f"SELECT DISTINCT pair_fingerprint FROM workers WHERE pair = '{pair}' AND state = 'stopped'"
    )
    assert len(fingerprints) == 2, "other weights, and the same fingerprint"


def _weights(farm: Farm, name: str) -> Path:
    """The tiny base once more, of links."""
    folder = farm.home / "weights" / name
    (source,) = (farm.home / "cache").glob("tiny-*/base")
    shutil.copytree(source, folder, copy_function=os.link)
    return folder


def _replace(path: Path, content: bytes) -> None:
    """Another file in its place: the old one is linked elsewhere, and may be mapped by a worker."""
    new = path.with_name("new")
    new.write_bytes(content)
    new.rename(path)


def _render(farm: Farm, pair: str, batch: int | None) -> None:
    seat = farm.add_worker(f"worker-{pair}", pair)
    wait_for(lambda: _states(farm, batch) == {"done"}, _WAIT_SECONDS, f"a batch of pair {pair}")
    farm.leave_seat(seat)


def _states(farm: Farm, batch: int | None) -> set[str]:
    return {state for (state,) in farm.ask(f"SELECT DISTINCT state FROM jobs WHERE batch_id = {batch}")}
