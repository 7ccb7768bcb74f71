"""What the farm costs: Nightshift's images/s as a share of a bare loop of the same denoising and decoding.

The bare loop renders pack after pack in one process and throws the pictures away. Nightshift does all of its work on
them: ledger, Redis, watermark, PNG, metadata, sha256, image store, results. Either renders with one core; Nightshift's
finishers have another. Both are loaded at the beginning and then take turns of a second, one standing still
while the other runs, so that both meet the same machine; what is said of them is by the clock of their own turns.
Each picture of Nightshift's has to be the bare loop's, pixel for pixel, with the watermark in it.

Beside that stands what noise hardly touches: what the rendering thread had of its turns (on a core, in line for one,
waiting), what an image costs it of the processor, and how long it is from the end of one pack to the next one's start.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from sqlalchemy import func, select

from benchmarks import render_command
from benchmarks.record import append
from benchmarks.turns import Comparison, Progress, Turn, TurnTaker, compared, shares
from farm.database import Database
from farm.schema import ensure_schema
from schemas.tables import Image, Pack, Result

#: rendering and everything that OpenMP does have one core. Memory that was freed stays with its process: whether glibc
#: hands it back to Linux, or not, is decided by how it came to lie, and costs a process up to a seventh of its time
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "GLIBC_TUNABLES": ":".join(
        f"glibc.malloc.{name}={value}"
        for name, value in (("arena_max", 1), ("mmap_threshold", 2**25), ("trim_threshold", 2**33))
    ),
}
_LOADING_SECONDS = 300.0
#: of both, in each of the stretches that are compared
_TURNS_A_STRETCH = 2

#: of its time, that the bare loop may stand in line
_QUIET_SHARE = 0.02


class Side(NamedTuple):
    """What is known of one of the two when it has ended. ``pixels``: spec digest → sha256. ``gaps``: seconds from a
    pack's last evaluation to the next one's start; none of the bare loop."""

    turns: list[Turn]
    progress: Progress
    pixels: dict[str, str]
    gaps: Sequence[float] = ()
    producer_mb: float = 0.0


def main() -> None:
    options = _options()
    if options.bare:
        from benchmarks.bare_loop import run_bare_loop

        run_bare_loop(options)
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # who stands still would stand for ever
    bare, ours = _measured(options)
    num_alike = _require_alike(bare, ours)
    try:
        found = compared(bare.progress, ours.progress, _TURNS_A_STRETCH * options.turn)
    except ValueError as error:
        sys.exit(f"{error}: more --seconds")
    figures = _shown(found, bare, ours)
    verdict = _verdict(found, figures["sides"]["bare loop"]["queued"], options.goal)
    print(f"goal {options.goal:.1%}: {verdict}; {num_alike} pictures are the bare loop's")
    chosen = {name: getattr(options, name) for name in ("pair", "side", "steps", "pass_size", "seconds", "turn")}
    append("overhead", options.record, {**chosen, "goal": options.goal, "verdict": verdict, **figures})
    sys.exit(0 if verdict == "shown" else 1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    render_command.add_arguments(parser)
    parser.set_defaults(manifest=Path("benchmarks/parti-400.tsv"), steps="3", limit=400, pass_size=4)
    parser.add_argument("--seconds", type=float, default=150, help="of all turns together")
    parser.add_argument("--turn", type=float, default=1.0, help="seconds; a GPU goes on with what it has: take 60")
    parser.add_argument("--goal", type=float, default=0.98)
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _measured(options: argparse.Namespace) -> tuple[Side, Side]:
    with tempfile.TemporaryDirectory(prefix="nightshift-bench-") as folder:
        bare_process, ours_process = _bare_process(), _nightshift(options, Path(folder))
        takers: list[TurnTaker] = []
        try:
            _wait_for_packs(ours_process, Path(folder))
            takers.append(TurnTaker(ours_process.pid, _worker_id(ours_process.pid)))
            _tell(bare_process, "go")
            takers.append(TurnTaker(bare_process.pid, bare_process.pid))
            _take_turns(takers, options, ours_process)
            producer_mb = _peak_megabytes(ours_process.pid)
        finally:
            for taker in takers:
                taker.let_go()
            ours_process.terminate()  # gently: the packs in hand are finished
            bare_answer = bare_process.communicate()[0]
            ours_process.wait()
        return _bare_side(takers[1], bare_answer), _our_side(takers[0], Path(folder), producer_mb)


def _take_turns(takers: list[TurnTaker], options: argparse.Namespace, ours: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + options.seconds
    while time.monotonic() < deadline and ours.poll() is None:
        for taker in takers:
            taker.take(options.turn)


def _bare_process() -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "benchmarks.overhead", *sys.argv[1:], "--bare"]
    return subprocess.Popen(command, env={**os.environ, **_ENVIRONMENT}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            text=True)  # fmt: skip


def _tell(bare: "subprocess.Popen[str]", word: str) -> None:
    """When it is loaded."""
    assert bare.stdin is not None
    assert bare.stdout is not None
    assert bare.stdout.readline() == "loaded\n", "the bare loop does not load"
    bare.stdin.write(f"{word}\n")
    bare.stdin.flush()


def _nightshift(options: argparse.Namespace, folder: Path) -> "subprocess.Popen[bytes]":
    """`nightshift render`, as a user runs it."""
    database = Database(render_command.database_url(folder))
    ensure_schema(database)  # which is asked before the command has made it
    database.close()
    environment = render_command.environment(options, folder) | _ENVIRONMENT
    return subprocess.Popen(render_command.command(options), env=environment, stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL)  # fmt: skip


def _wait_for_packs(process: "subprocess.Popen[bytes]", folder: Path) -> None:
    """Until the first pack has begun."""
    deadline, began = time.monotonic() + _LOADING_SECONDS, False
    while not began:
        assert process.poll() is None, f"nightshift render ended with {process.returncode}"
        assert time.monotonic() < deadline, "nightshift render does not begin"
        time.sleep(0.5)
        began = _has_begun(folder)
    time.sleep(0.5)


def _has_begun(folder: Path) -> bool:
    database = Database(render_command.database_url(folder))
    try:
        with database.begin(read_only=True) as tx:
            return tx.execute(select(func.max(Pack.rendering_at))).scalar_one() is not None
    finally:
        database.close()


def _worker_id(process_id: int) -> int:
    """The process that renders."""
    processes = psutil.Process(process_id).children(recursive=True)
    return next(process.pid for process in processes if "worker.device_process.process" in process.cmdline())


def _peak_megabytes(process_id: int) -> float:
    """Of this process alone, which is producer and dispatcher; 0 where it has ended."""
    try:
        status = Path(f"/proc/{process_id}/status").read_text()
    except FileNotFoundError:
        return 0.0
    return max((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")), default=0.0)


def _bare_side(taker: TurnTaker, answer: str) -> Side:
    told = json.loads(answer.splitlines()[-1])
    return Side(taker.turns, Progress(taker.turns, told["begins"], told["sizes"]), told["pixels"])


def _our_side(taker: TurnTaker, folder: Path, producer_mb: float) -> Side:
    database = Database(render_command.database_url(folder))
    with database.begin(read_only=True) as tx:
        counted = select(Pack.rendering_at, func.count(Result.job_id), func.max(Result.render_seconds))
        packs = tx.execute(
            counted.join(Result, Result.pack_id == Pack.id).group_by(Pack.id).order_by(Pack.rendering_at)
        ).all()
        rows = select(Image.spec_digest, Image.pixel_sha256).join(Result, Result.image_id == Image.id)
        pixels = {row.spec_digest: row.pixel_sha256 for row in tx.execute(rows)}
    database.close()
    begins = [began.timestamp() for began, _, _ in packs]
    rendering = [seconds for _, _, seconds in packs]
    gaps = [later - began - took for began, later, took in zip(begins, begins[1:], rendering, strict=False)]
    progress = Progress(taker.turns, begins, [num_images for _, num_images, _ in packs])
    return Side(taker.turns, progress, pixels, gaps, producer_mb)


def _require_alike(bare: Side, ours: Side) -> int:
    both = bare.pixels.keys() & ours.pixels.keys()
    if not both or any(bare.pixels[digest] != ours.pixels[digest] for digest in both):
        sys.exit("the pictures are not those of the bare loop")
    return len(both)


def _shown(found: Comparison, bare: Side, ours: Side) -> dict[str, Any]:
    sides: dict[str, Any] = {}
    print(f"{'':<12}{'images/s':>10}{'CPU s an image':>16}{'on a core':>11}{'in line':>9}{'waiting':>9}{'stolen':>8}")
    for name, side, rate in (("bare loop", bare, found.first_per_s), ("nightshift", ours, found.second_per_s)):
        turns = [turn for turn in side.turns if turn.began >= found.began and turn.ended <= found.ended]
        had, seconds = shares(turns), sum(turn.ended - turn.began for turn in turns)
        cpu_seconds = had.busy_seconds / (rate * seconds)
        print(f"{name:<12}{rate:>10.3f}{cpu_seconds:>16.4f}{had.busy:>11.2%}{had.queued:>9.2%}{had.waiting:>9.2%}"
              f"{had.stolen:>8.2%}")  # fmt: skip
        sides[name] = {"images_per_s": rate, "cpu_s_an_image": cpu_seconds, **had._asdict()}
    unqueued = _unqueued(sides["nightshift"]) / _unqueued(sides["bare loop"])
    print(f"share {found.share:.2%}, with 95 % between {found.low:.2%} and {found.high:.2%}: {found.num_stretches}"
          f" stretches, the median of them {found.median:.2%}")  # fmt: skip
    print(f"without what either stood in line for a core {unqueued:.2%}")
    gap = statistics.median(ours.gaps)
    print(f"from one pack to the next {gap * 1e3:.1f} ms of the device thread; the producer took {ours.producer_mb:.0f}"
          " MB")  # fmt: skip
    more = {"share_unqueued": unqueued, "gap_ms": gap * 1e3, "producer_mb": ours.producer_mb}
    return {"sides": sides, **found._asdict(), **more}


def _unqueued(side: dict[str, float]) -> float:
    """Images/s, were a core always free."""
    return side["images_per_s"] / (1 - side["queued"])


def _verdict(found: Comparison, queued: float, goal: float) -> str:
    """``queued``: of the bare loop, for which there is always a core unless others have it."""
    if queued > _QUIET_SHARE:
        return "open, for others had the cores"
    if found.low >= goal:
        return "shown"
    return "refuted" if found.high < goal else "open"


if __name__ == "__main__":
    main()
