"""What the farm costs: Nightshift's images/s as a share of a bare loop of the same rendering, in one run.

The bare loop renders pack after pack in one process and throws the pictures away. Nightshift does all of its work on
them: ledger, Redis, watermark, PNG, metadata, sha256, image store, results. Either renders with one core; Nightshift's
finishers have another. They take turns, and the loop's process ends before Nightshift's starts. Each picture of
Nightshift's has to be the bare loop's, pixel for pixel, with the watermark in it.

Both are timed as they run on and on, from the beginning of their second pack to that of their last one. On a busy
machine the rendering thread stands in line for a core; that is not the farm's doing, and is taken off both. What it
waits for otherwise (packs, the ledger, the GIL) is the farm's.
"""

import argparse
import gc
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
from importlib.metadata import version
from pathlib import Path

import numpy as np
from sqlalchemy import func, select

from benchmarks.thread_times import BusiestThread, Moment, moment
from farm.database import Database
from producer.manifest import ReadOptions, Row, read_manifest
from schemas.spec import JobSpec
from schemas.tables import Image, Pack, Result

_LIBRARIES = ("torch", "diffusers", "transformers", "celery", "sqlalchemy", "isal")
#: rendering and everything that OpenMP does have one core
_ONE_CORE = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def main() -> None:
    options = _options()
    if options.bare:
        print(json.dumps(_bare_loop(options)))
        return
    rounds = [_round(options) for _ in range(options.rounds)]
    print(f"{'round':>5} {'images':>7} {'bare/s':>8} {'nightshift/s':>13} {'share':>6} {'by the clock':>13} {'busy':>6}"
          f" {'producer MB':>12}")  # fmt: skip
    for number, one in enumerate(rounds, 1):
        print(f"{number:>5} {one['images']:>7} {one['bare']:>8.3f} {one['nightshift']:>13.3f} {one['share']:>6.1%}"
              f" {one['share_by_clock']:>13.1%} {one['busy']:>6.1%} {one['producer_mb']:>12.0f}")  # fmt: skip
    share = statistics.median(one["share"] for one in rounds)
    record = {
        "benchmark": "overhead",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in _LIBRARIES},
        "share_median": round(share, 4),
        "rounds": rounds,
    }
    with open(options.record, "a", encoding="utf-8") as stream:
        stream.write(json.dumps(record) + "\n")
    print(f"median share {share:.1%}; every picture is the bare loop's; appended to {options.record}")
    sys.exit(0 if share >= options.goal else 1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("manifest", type=Path, nargs="?", default=Path("benchmarks/prompts.txt"))
    parser.add_argument("--pair", default="tiny")
    parser.add_argument("--side", default="256", help="width and height")
    parser.add_argument("--steps", default="6")
    parser.add_argument("--limit", type=int, default=48)
    parser.add_argument("--pass-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--goal", type=float, default=0.98)
    parser.add_argument("--record", default="benchmarks.jsonl")
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _round(options: argparse.Namespace) -> dict[str, float]:
    bare, ours = _bare_process(options), _nightshift(options)
    if bare.pop("pixels") != ours.pop("pixels"):
        sys.exit("the pictures are not those of the bare loop")
    rates = [side["images"] / (side["seconds"] - side["queued_seconds"]) for side in (bare, ours)]
    by_clock = [side["images"] / side["seconds"] for side in (bare, ours)]
    return {
        "images": ours["images"],
        "bare": rates[0],
        "nightshift": rates[1],
        "share": rates[1] / rates[0],
        "share_by_clock": by_clock[1] / by_clock[0],
        "busy": ours["busy_seconds"] / (ours["seconds"] - ours["queued_seconds"]),
        "producer_mb": ours["producer_mb"],
    }


def _specs(options: argparse.Namespace) -> list[JobSpec]:
    chosen = ReadOptions(columns={}, defaults=_fields(options), limit=options.limit, base_seed=0)
    return [row.spec for row in read_manifest(options.manifest, chosen) if isinstance(row, Row)]


def _fields(options: argparse.Namespace) -> dict[str, str]:
    return {"width": options.side, "height": options.side, "num_inference_steps": options.steps}


def _bare_process(options: argparse.Namespace) -> dict:
    """In a process of its own, so that its threads and memory are gone when Nightshift's turn comes."""
    answer = subprocess.run(
        [sys.executable, "-m", "benchmarks.overhead", *sys.argv[1:], "--bare"],
        env={**os.environ, **_ONE_CORE}, check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    return json.loads(answer.stdout.splitlines()[-1])


def _bare_loop(options: argparse.Namespace) -> dict:
    import torch

    from schemas.settings import load_settings
    from worker.pipelines import load_pair
    from worker.rendering import render

    settings = load_settings()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pair = load_pair(settings.model_pair(options.pair), device, settings.home / "cache")
    specs = _specs(options)
    gc.freeze()  # as a worker does
    packs = [specs[first : first + options.pass_size] for first in range(0, len(specs), options.pass_size)]
    images, begins = [], []
    for pack in packs:
        begins.append(moment(os.getpid(), threading.get_native_id()))
        images += render(pair, pack).images
    took = Moment(*(after - before for before, after in zip(begins[1], begins[-1], strict=True)))
    return {
        "images": sum(map(len, packs[1:-1])),
        "seconds": took.at,
        "queued_seconds": took.queued_seconds,
        "pixels": {spec.digest: _marked_sha256(image) for spec, image in zip(specs, images, strict=True)},
    }


def _marked_sha256(pixels: np.ndarray) -> str:
    from farm.watermark import has_room, put_watermark

    return hashlib.sha256(put_watermark(pixels) if has_room(pixels) else np.ascontiguousarray(pixels)).hexdigest()


def _nightshift(options: argparse.Namespace) -> dict:
    """`nightshift render`, as a user runs it."""
    with tempfile.TemporaryDirectory(prefix="nightshift-bench-") as folder:
        home = os.environ.get("NIGHTSHIFT_HOME", str(Path("~/.nightshift").expanduser()))
        database_url = f"sqlite:///{folder}/ledger.sqlite3"
        environment = {
            **os.environ,
            **_ONE_CORE,
            "NIGHTSHIFT_HOME": home,  # where the pair is cached
            "NIGHTSHIFT_DATABASE_URL": database_url,
            "NIGHTSHIFT_IMAGES_URL": Path(folder, "images").as_uri(),
            "NIGHTSHIFT_FORWARD_PASS_SIZE": str(options.pass_size),
            "NIGHTSHIFT_PACK_SIZE": str(options.pass_size),
        }
        command = [sys.executable, "-m", "nightshift", "render", str(options.manifest), "--pair", options.pair]
        command += ["--limit", str(options.limit), "--json"]
        for name, value in _fields(options).items():
            command += ["--set", f"{name}={value}"]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        device_thread = BusiestThread(process.pid, "worker.process")
        producer_mb = _peak_megabytes(process)
        device_thread.stop()
        assert process.returncode == 0, f"nightshift render ended with {process.returncode}"
        return {**_recorded(database_url, device_thread), "producer_mb": producer_mb}


def _recorded(database_url: str, device_thread: BusiestThread) -> dict:
    database = Database(database_url)
    with database.begin(read_only=True) as tx:
        counted = select(Pack.rendering_at, func.count(Result.job_id)).join(Result, Result.pack_id == Pack.id)
        packs = tx.execute(counted.group_by(Pack.id).order_by(Pack.rendering_at)).all()
        rows = select(Image.spec_digest, Image.pixel_sha256).join(Result, Result.image_id == Image.id)
        pixels = {row.spec_digest: row.pixel_sha256 for row in tx.execute(rows)}
    database.close()
    began, ended = (pack[0].timestamp() for pack in (packs[1], packs[-1]))
    had = device_thread.between(began, ended)
    return {
        "images": sum(num_jobs for _, num_jobs in packs[1:-1]),
        "seconds": ended - began,
        "busy_seconds": had.busy_seconds,
        "queued_seconds": had.queued_seconds,
        "pixels": pixels,
    }


def _peak_megabytes(process: "subprocess.Popen[bytes]") -> float:
    """Of this process alone, which is producer and dispatcher; its workers are other processes. Waits for its end."""
    peak = 0.0
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        peak = max([peak, *(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))])
        threading.Event().wait(0.2)
    return peak


if __name__ == "__main__":
    main()
