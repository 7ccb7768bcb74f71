"""What the farm costs: Nightshift's images/s as a share of a bare loop over the same pipelines, in one run.

The bare loop calls diffusers as its documentation shows, base then refiner, in passes of the same size, and throws the
pictures away. Nightshift does all of its work on them: ledger, Redis, watermark, PNG, metadata, sha256, image store,
results. Both are timed without loading: the loop from its first call, Nightshift from the first pack's start to the
last result, by the ledger's clock. They take turns, and the loop's process ends before Nightshift's starts.

Bias: on a CPU both share the cores with nothing, while Nightshift's finishers share them with its device thread; on a
GPU finishing is hidden behind the device. So a CPU shows the worst case.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from sqlalchemy import func, select

from farm.database import Database
from producer.manifest import ReadOptions, Row, read_manifest
from schemas.spec import JobSpec
from schemas.tables import Pack, Result


def main() -> None:
    options = _options()
    if options.bare:
        print(json.dumps(_bare_loop(options)))
        return
    rounds = [(_bare_process(options), _nightshift(options)) for _ in range(options.rounds)]
    shares = [ours["images_per_second"] / bare["images_per_second"] for bare, ours in rounds]
    print(f"{'round':>5} {'images':>7} {'bare/s':>8} {'nightshift/s':>13} {'share':>6} {'producer MB':>12}")
    for number, ((bare, ours), share) in enumerate(zip(rounds, shares, strict=True), 1):
        print(f"{number:>5} {ours['images']:>7} {bare['images_per_second']:>8.3f} {ours['images_per_second']:>13.3f}"
              f" {share:>6.1%} {ours['producer_mb']:>12.0f}")  # fmt: skip
    record = {
        "benchmark": "overhead",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("torch", "diffusers", "transformers", "celery", "sqlalchemy")},
        "share_median": round(statistics.median(shares), 4),
        "rounds": [{"bare": bare, "nightshift": ours} for bare, ours in rounds],
    }
    with open(options.record, "a", encoding="utf-8") as stream:
        stream.write(json.dumps(record) + "\n")
    print(f"median share {statistics.median(shares):.1%}; appended to {options.record}")
    sys.exit(0 if statistics.median(shares) >= options.goal else 1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("manifest", type=Path, nargs="?", default=Path("benchmarks/prompts.txt"))
    parser.add_argument("--pair", default="tiny")
    parser.add_argument("--side", default="256", help="width and height")
    parser.add_argument("--steps", default="10")
    parser.add_argument("--limit", type=int, default=48)
    parser.add_argument("--bare-limit", type=int, help="images of the bare loop; else as many as --limit")
    parser.add_argument("--pass-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--goal", type=float, default=0.85)
    parser.add_argument("--record", default="benchmarks.jsonl")
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _specs(options: argparse.Namespace) -> list[JobSpec]:
    limit = options.bare_limit or options.limit
    rows = read_manifest(options.manifest, ReadOptions(columns={}, defaults=_fields(options), limit=limit, base_seed=0))
    return [row.spec for row in rows if isinstance(row, Row)]


def _fields(options: argparse.Namespace) -> dict[str, str]:
    return {"width": options.side, "height": options.side, "num_inference_steps": options.steps}


def _bare_process(options: argparse.Namespace) -> dict[str, float]:
    """In a process of its own, so that its threads and memory are gone when Nightshift's turn comes."""
    answer = subprocess.run([sys.executable, *sys.argv, "--bare"], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(answer.stdout.splitlines()[-1])


def _bare_loop(options: argparse.Namespace) -> dict[str, float]:
    import torch

    from schemas.settings import load_settings
    from worker.pipelines import load_pair

    settings = load_settings()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pair = load_pair(settings.model_pair(options.pair), device, settings.home / "cache")
    specs = _specs(options)
    started = time.perf_counter()
    for first in range(0, len(specs), options.pass_size):
        some = specs[first : first + options.pass_size]
        generators = [torch.Generator("cpu").manual_seed(spec.seed) for spec in some]
        shared = {
            "prompt": [spec.prompt for spec in some],
            "num_inference_steps": some[0].num_inference_steps,
            "guidance_scale": some[0].guidance_scale,
            "generator": generators,
        }
        size = {"height": some[0].height, "width": some[0].width}
        start = some[0].refiner.start
        latents = pair.base(**shared, **size, denoising_end=start, output_type="latent").images
        pair.refiner(**shared, image=latents, denoising_start=start)
    seconds = time.perf_counter() - started
    return {"images": len(specs), "seconds": seconds, "images_per_second": len(specs) / seconds}


def _nightshift(options: argparse.Namespace) -> dict[str, float]:
    """`nightshift render`, as a user runs it."""
    with tempfile.TemporaryDirectory(prefix="nightshift-bench-") as folder:
        home = os.environ.get("NIGHTSHIFT_HOME", str(Path("~/.nightshift").expanduser()))
        database_url = f"sqlite:///{folder}/ledger.sqlite3"
        environment = {
            **os.environ,
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
        producer_mb = _peak_megabytes(process)
        assert process.returncode == 0, f"nightshift render ended with {process.returncode}"
        return {**_times(database_url), "producer_mb": producer_mb}


def _times(database_url: str) -> dict[str, float]:
    database = Database(database_url)
    with database.begin(read_only=True) as tx:
        began = tx.execute(select(func.min(Pack.rendering_at))).scalar_one()
        ended, images = tx.execute(select(func.max(Result.finished_at), func.count(Result.job_id))).one()
    database.close()
    seconds = (ended - began).total_seconds()
    return {"images": images, "seconds": seconds, "images_per_second": images / seconds}


def _peak_megabytes(process: "subprocess.Popen[bytes]") -> float:
    """Of this process alone, which is producer and dispatcher; its workers are other processes. Waits for its end."""
    peak = 0.0
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        peak = max([peak, *(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))])
        time.sleep(0.2)
    return peak


if __name__ == "__main__":
    main()
