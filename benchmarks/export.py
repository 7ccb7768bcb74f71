"""How fast `nightshift export` writes, as a share of what `tar` needs for the same files, and how much memory it takes.

A ledger with finished batches is made first, in bulk; its images are files of random bytes (an export decodes nothing
unless it is asked to look). Then, in turns: `tar` of the image store, and the export into WebDataset shards; then an
imagefolder of links, Parquet, and CSV. Each writes to the same disk, ends with a sync, and is begun with the files in
the page cache or (--cold) dropped from it. What was exported is checked: every image of every shard has its sha256.

A million images of 2 kB: --images 1000000 --kilobytes 2 --rounds 1 --small-disk. Everything lies in a temporary folder
that is removed at the end, also after Ctrl-C or SIGTERM.

Bias: the rows are alike; `tar` has only the images, the shards their captions, records and tables as well. With
--small-disk a thousand files have many names, and the shards are checked beside the export, with what it leaves idle.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.finished_farm import Stored, finished_farm
from benchmarks.record import append

#: with --small-disk: so many files, and links to them
_FEW_FILES = 1_000
_CHECK_SECONDS = 2.0
#: of one image beside its file's own: rows and indexes; a name; samples of a shard; a line of metadata
_LEDGER_BYTES, _NAME_BYTES, _SAMPLE_BYTES, _LINE_BYTES = 1_700, 400, 4_600, 1_700
_BLOCK_BYTES = 4_096


def main() -> None:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # the folder is removed on the way
    _require_space(options)
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="nightshift-bench-") as folder:
        num_files = _FEW_FILES if options.small_disk else None
        stored = finished_farm(Path(folder), options.images, options.kilobytes * 1000, num_files=num_files)
        tell(f"{stored.num_images:,} images are in the ledger and in the store")
        turns = [(_tar(stored, options), _export(stored, "webdataset", options)) for _ in range(options.rounds)]
        others = {name: _export(stored, name, options) for name in ("imagefolder", "parquet", "csv")}
    shares = sorted(tar["seconds"] / ours["seconds"] for tar, ours in turns)
    best = [min(runs, key=lambda run: run["seconds"]) for runs in zip(*turns, strict=True)]
    found = {"tar": best[0], "webdataset": best[1], **others}
    _print(stored, found)
    share = shares[len(shares) // 2]
    print(f"{share:.0%} of tar's rate (median of {len(shares)})")
    figures = {"images": stored.num_images, "bytes": stored.num_bytes, "share_of_tar": round(share, 3), "runs": found}
    append("export", options.record, figures)
    sys.exit(0 if share >= options.goal else 1)


def _print(stored: Stored, found: dict[str, dict[str, float]]) -> None:
    print(f"{'':12} {'seconds':>8} {'processor':>9} {'ms/image':>9} {'images/s':>9} {'MB/s':>7} {'peak MB':>8}")
    for name, run in found.items():
        rates = stored.num_images / run["seconds"], stored.num_bytes / run["seconds"] / 1e6
        each = run["processor_seconds"] / stored.num_images * 1000
        print(f"{name:12} {run['seconds']:>8.2f} {run['processor_seconds']:>9.2f} {each:>9.3f} {rates[0]:>9,.0f}"
              f" {rates[1]:>7,.0f} {run.get('peak_mb', ''):>8}")  # fmt: skip


def tell(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {what}", file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=2_000)
    parser.add_argument("--kilobytes", type=int, default=1_500, help="of an image")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--goal", type=float, default=0.5, help="the least share of tar's rate")
    parser.add_argument("--cold", action="store_true", help="drop the files from the page cache before each run")
    parser.add_argument("--small-disk", action="store_true", help="few files with many names; no shard is kept")
    parser.add_argument("--folder", default=None, help="where to work; else the temporary folder")
    parser.add_argument("--record", default="benchmarks.jsonl")
    return parser.parse_args()


def _require_space(options: argparse.Namespace) -> None:
    """What it takes at the most, beside what is there; known beforehand, and not after an hour."""
    blocks = -(-options.kilobytes * 1000 // _BLOCK_BYTES) * _BLOCK_BYTES
    kept = (_FEW_FILES if options.small_disk else options.images) * blocks
    shards = options.kilobytes * 1000 + (_LINE_BYTES if options.small_disk else _SAMPLE_BYTES)
    needed = kept + options.images * (_LEDGER_BYTES + _NAME_BYTES + shards)
    folder = options.folder or tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if free < needed:
        sys.exit(f"{folder} has {free / 1e9:.1f} GB free, {needed / 1e9:.1f} are needed; --folder names another disk")
    tell(f"takes up to {needed / 1e9:.1f} GB of {folder} meanwhile")


def _tar(stored: Stored, options: argparse.Namespace) -> dict[str, float]:
    """Its seconds and the processors'."""
    archive = stored.home.parent / "reference.tar"
    _settle(stored, options)
    started = time.perf_counter()
    before = os.times()
    subprocess.run(["tar", "--hard-dereference", "-cf", archive, "-C", stored.files, "."], check=True)
    after = os.times()
    os.sync()
    seconds = time.perf_counter() - started
    archive.unlink()
    spent = after.children_user - before.children_user + after.children_system - before.children_system
    return {"seconds": seconds, "processor_seconds": spent}


def _export(stored: Stored, file_format: str, options: argparse.Namespace) -> dict[str, float]:
    target = stored.home.parent / file_format
    _settle(stored, options)
    told = stored.home.parent / "told"
    emptied = target if options.small_disk else None
    num_right = _run(stored, ["--format", file_format, "--to", str(target)], told, emptied)
    seconds, processor_seconds, peak_kb = map(float, told.read_text().split()[-3:])
    tell(f"{file_format} took {seconds:,.0f} s")
    num_right += sum(_num_right(path) for path in sorted(target.glob("*.tar")))
    wanted = stored.num_images if file_format == "webdataset" else 0
    assert num_right == wanted, f"{num_right:,} of {wanted:,} images are in the shards"
    subprocess.run(["rm", "-rf", target], check=True)
    return {"seconds": seconds, "processor_seconds": processor_seconds, "peak_mb": round(peak_kb / 1000)}


def _run(stored: Stored, options: list[str], told: Path, emptied: Path | None) -> int:
    """``told``: gets what is said on stderr. ``emptied``: a folder whose shards are checked and removed meanwhile;
    returns how many of their images were right."""
    environment = {**os.environ, "NIGHTSHIFT_HOME": str(stored.home)}
    command = [sys.executable, "-c", _MEASURED, "export", "1", *options, "--json"]
    with ThreadPoolExecutor(1) as pool, told.open("w") as stream:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stream, env=environment)
        taken = pool.submit(_taken_away, emptied, process) if emptied else None
        try:
            process.wait()
        finally:
            process.kill()
        assert process.returncode == 0, told.read_text()
        return taken.result() if taken else 0


def _taken_away(target: Path, process: "subprocess.Popen[bytes]") -> int:
    """Checks and removes shards while the next ones are written. Returns how many of their images were right. In a
    thread of its own, which has what is left of the processors."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    num_right = 0
    while process.poll() is None:
        time.sleep(_CHECK_SECONDS)
        for whole in target.glob("*_stats.json"):
            path = whole.with_name(whole.name.replace("_stats.json", ".tar"))
            if path.exists():
                num_right += _num_right(path)
                path.unlink()
    return num_right


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


def _num_right(shard: Path) -> int:
    """How many of its samples have an image with the sha256 of their record."""
    image, num_right = b"", 0
    for name, content in _members(shard):
        if name.endswith(".png"):
            image = content
        elif name.endswith(".json"):
            num_right += json.loads(content)["sha256"] == hashlib.sha256(image).hexdigest()
    return num_right


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path) as tar:
        for member in tar:
            yield member.name, tar.extractfile(member).read()
            tar.members = []  # else it remembers each


def _settle(stored: Stored, options: argparse.Namespace) -> None:
    """The files in the page cache, or out of it."""
    os.sync()
    for path in _files(stored.files):
        with open(path, "rb", buffering=0) as stream:
            if options.cold:
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            else:
                stream.read()


def _files(folder: Path) -> Iterator[str]:
    for parent, _, names in os.walk(folder):
        yield from (os.path.join(parent, name) for name in names)


if __name__ == "__main__":
    main()
