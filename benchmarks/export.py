"""How fast `nightshift export` writes, as a share of what `tar` needs for the same files, and how much memory it takes.

A ledger with finished batches is made first, in bulk; its images are files of random bytes (an export decodes nothing
unless it is asked to look). Then, in turns: `tar` of the image store, and the export into WebDataset shards; then an
imagefolder of links, Parquet, and CSV. Each writes to the same disk, ends with a sync, and is begun with the files in
the page cache or (--cold) dropped from it. What was exported is checked: every image of every shard has its sha256.

Bias: the rows are alike; `tar` has only the images, the shards their captions, records and tables as well.
"""

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import insert

from benchmarks.record import append
from farm.database import Database
from farm.schema import upgrade
from schemas.digest import sha256_hex
from schemas.spec import JobSpec
from schemas.states import BatchState, JobState, PackState
from schemas.tables import Batch, EnvironmentRow, Image, Job, Pack, Result, Worker

_CHUNK = 5_000
_ENVIRONMENT = {
    "pair": "sdxl", "pair_fingerprint": "f" * 64, "base": "stabilityai/stable-diffusion-xl-base-1.0",
    "base_revision": None, "base_hash": "b" * 10, "refiner": None, "refiner_revision": None, "refiner_hash": None,
    "license": "CreativeML Open RAIL++-M", "versions": {"nightshift": "0"}, "device": "cpu", "dtype": "float32",
    "attention_backend": "sdpa",
}  # fmt: skip
_PROVENANCE = {
    "handoff": "none", "forward_pass_size": 1, "base_steps": 40, "refiner_steps": 0, "handoff_sigma": None,
    "prompt_chunks": 1, "refiner_prompt_chunks": 0, "watermark_bits": 48, "vae_float32_retry": False,
}  # fmt: skip


@dataclass(frozen=True)
class Stored:
    """A farm of so many images. ``files``: the image store."""

    home: Path
    files: Path
    num_images: int
    num_bytes: int


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="nightshift-bench-") as folder:
        stored = finished_farm(Path(folder), options.images, options.kilobytes * 1000)
        turns = [(_tar(stored, options), _export(stored, "webdataset", options)) for _ in range(options.rounds)]
        others = {name: _export(stored, name, options) for name in ("imagefolder", "parquet", "csv")}
    shares = sorted(tar["seconds"] / ours["seconds"] for tar, ours in turns)
    best = [min(runs, key=lambda run: run["seconds"]) for runs in zip(*turns, strict=True)]
    found = {"tar": best[0], "webdataset": best[1], **others}
    print(f"{'':12} {'seconds':>8} {'processor':>9} {'images/s':>9} {'MB/s':>7} {'peak MB':>8}")
    for name, run in found.items():
        rates = stored.num_images / run["seconds"], stored.num_bytes / run["seconds"] / 1e6
        print(f"{name:12} {run['seconds']:>8.2f} {run['processor_seconds']:>9.2f} {rates[0]:>9,.0f} {rates[1]:>7,.0f}"
              f" {run.get('peak_mb', ''):>8}")  # fmt: skip
    share = shares[len(shares) // 2]
    print(f"{share:.0%} of tar's rate (median of {len(shares)})")
    figures = {"images": stored.num_images, "bytes": stored.num_bytes, "share_of_tar": round(share, 3), "runs": found}
    append("export", options.record, figures)
    sys.exit(0 if share >= options.goal else 1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=2_000)
    parser.add_argument("--kilobytes", type=int, default=1_500, help="of an image")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--goal", type=float, default=0.5, help="the least share of tar's rate")
    parser.add_argument("--cold", action="store_true", help="drop the files from the page cache before each run")
    parser.add_argument("--folder", default=None, help="where to work; else the temporary folder")
    parser.add_argument("--record", default="benchmarks.jsonl")
    return parser.parse_args()


def finished_farm(folder: Path, num_images: int, image_bytes: int, prompt: str = "a photo of a red fox") -> Stored:
    """A ledger with one finished batch, and its files of random bytes: in ``home`` below the folder."""
    home, store = folder / "home", folder / "home" / "images"
    database = Database(f"sqlite:///{home / 'ledger.sqlite3'}")
    upgrade(database)
    _write_beginning(database, num_images)
    for first in range(0, num_images, _CHUNK):
        numbers = range(first + 1, min(first + _CHUNK, num_images) + 1)
        _write_rows(database, store, [JobSpec(prompt=f"{prompt} {n}", seed=n) for n in numbers], image_bytes)
    database.close()
    return Stored(home, store, num_images, num_images * image_bytes)


def _write_beginning(database: Database, num_images: int) -> None:
    with database.begin() as tx:
        counters = {f"num_{state}": 0 for state in JobState} | {"num_done": num_images}
        tx.execute(insert(Batch), {"id": 1, "name": "bench", "pair": "sdxl", "state": BatchState.OPEN, "priority": 5,
                                   "created_at": tx.now, **counters})  # fmt: skip
        tx.execute(insert(EnvironmentRow), {"digest": "e" * 64, "content": _ENVIRONMENT})
        tx.execute(insert(Worker), {"id": "w" * 32, "host": "bench", "process_id": 1, "device": "cpu", "pair": "sdxl",
                                    "state": "stopped", "started_at": tx.now, "seen_at": tx.now})  # fmt: skip
        tx.execute(insert(Pack), {"id": "p" * 32, "batch_id": 1, "pair": "sdxl", "pack_key": "k",
                                  "state": PackState.FINISHED, "num_jobs": 1, "released_at": tx.now})  # fmt: skip


def _write_rows(database: Database, store: Path, specs: list[JobSpec], num_bytes: int) -> None:
    """The seeds are the jobs' numbers, and their ids."""
    images = [_image(store, spec, num_bytes) for spec in specs]
    jobs = [{"id": spec.seed, "batch_id": 1, "number": spec.seed, "spec": spec.canonical, "spec_digest": spec.digest,
             "repeat": 0, "pack_key": spec.pack_key, "meta": {"category": "animals"}, "state": JobState.DONE}
            for spec in specs]  # fmt: skip
    made = {"environment_digest": "e" * 64, "provenance": _PROVENANCE, "worker_id": "w" * 32, "pack_id": "p" * 32,
            "attempt": 1, "render_seconds": 1.0, "finish_seconds": 0.1}  # fmt: skip
    with database.begin() as tx:
        tx.execute(insert(Job), jobs)
        tx.execute(insert(Image), [{**image, "created_at": tx.now} for image in images])
        tx.execute(
            insert(Result),
            [{**made, "job_id": n, "image_id": n, "finished_at": tx.now} for n in (spec.seed for spec in specs)],
        )


def _image(store: Path, spec: JobSpec, num_bytes: int) -> dict[str, object]:
    content = random.Random(spec.seed).randbytes(num_bytes)
    sha256 = hashlib.sha256(content).hexdigest()
    path = store / sha256[:2] / sha256[2:4] / f"{sha256}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return {"id": spec.seed, "uri": path.as_uri(), "sha256": sha256, "pixel_sha256": sha256_hex(sha256),
            "size_bytes": num_bytes, "width": spec.width, "height": spec.height, "format": "png",
            "spec_digest": spec.digest, "pair_fingerprint": "f" * 64}  # fmt: skip


def _tar(stored: Stored, options: argparse.Namespace) -> dict[str, float]:
    """Its seconds and the processors'."""
    archive = stored.home.parent / "reference.tar"
    _settle(stored, options)
    started = time.perf_counter()
    before = os.times()
    subprocess.run(["tar", "-cf", archive, "-C", stored.files, "."], check=True)
    after = os.times()
    os.sync()
    seconds = time.perf_counter() - started
    archive.unlink()
    spent = after.children_user - before.children_user + after.children_system - before.children_system
    return {"seconds": seconds, "processor_seconds": spent}


def _export(stored: Stored, file_format: str, options: argparse.Namespace) -> dict[str, float]:
    target = stored.home.parent / file_format
    command = [sys.executable, "-c", _MEASURED, "export", "1", "--format", file_format, "--to", str(target), "--json"]
    _settle(stored, options)
    answer = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, "NIGHTSHIFT_HOME": str(stored.home)}
    )
    seconds, processor_seconds, peak_kb = map(float, answer.stderr.split()[-3:])
    if file_format == "webdataset":
        num_right = sum(1 for _ in _right_images(target))
        assert num_right == stored.num_images, f"{num_right:,} of {stored.num_images:,} images are in the shards"
    subprocess.run(["rm", "-rf", target], check=True)
    return {"seconds": seconds, "processor_seconds": processor_seconds, "peak_mb": round(peak_kb / 1000)}


#: the real command, which says at its end how long it took from when it was loaded to when all was on the disk, how
#: much of the processors' time that was, and how many kB it held at the most
_MEASURED = """
import os, sys, time, nightshift, pyarrow.parquet
started, spent = time.perf_counter(), time.process_time()
try:
    nightshift.main()
finally:
    os.sync()
    (line,) = (line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
    print(time.perf_counter() - started, time.process_time() - spent, line.split()[1], file=sys.stderr)
"""


def _right_images(target: Path) -> Iterator[str]:
    """Names of the shards' samples whose image has the sha256 of their record."""
    for path in sorted(target.glob("*.tar")):
        image = b""
        for name, content in _members(path):
            if name.endswith(".png"):
                image = content
            elif name.endswith(".json") and json.loads(content)["sha256"] == hashlib.sha256(image).hexdigest():
                yield name


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path) as tar:
        for member in tar:
            yield member.name, tar.extractfile(member).read()
            tar.members = []  # else it remembers each


def _settle(stored: Stored, options: argparse.Namespace) -> None:
    """The files in the page cache, or out of it."""
    os.sync()
    for path in stored.files.rglob("*.png"):
        with path.open("rb") as stream:
            if options.cold:
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            else:
                stream.read()


if __name__ == "__main__":
    main()
