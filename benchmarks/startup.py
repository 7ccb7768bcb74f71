"""What a worker's cold start takes, part by part, and what a second worker on the same host adds to memory.

Each round has a home of its own, in which no digest of a weight file is remembered: the first worker hashes, the second
does not. Beside them stands a process that only calls diffusers' ``from_pretrained``, as its documentation shows.

Memory is read from ``/proc/PID/smaps_rollup`` once a worker is ready, before its first pack. Pss counts a page that n
processes share as one n-th; anonymous memory is nobody else's.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import select

from benchmarks.record import append
from farm.database import Database
from farm.embedded_redis import EmbeddedRedis
from schemas.settings import load_settings
from schemas.tables import Worker

_COLUMNS = ("start s", "CPU s", "peak RSS", "RSS", "Pss", "anonymous")
_TIMELINE = re.compile(r"INFO ready ([\d.]+) s after its start: (.+)")
_READY_SECONDS = 600.0


def main() -> None:
    options = _options()
    if options.alone:
        _from_pretrained(options)
        return
    rounds = [_round(options) for _ in range(options.rounds)]
    quickest = min(rounds, key=lambda one: one["first worker"]["CPU s"])
    print(f"{'MB':<16} " + " ".join(f"{name:>10}" for name in _COLUMNS))
    for name in ("from_pretrained", "first worker", "second worker"):
        print(f"{name:<16} " + " ".join(f"{quickest[name][column]:>10.1f}" for column in _COLUMNS))
    print(f"two workers: {quickest['both Pss']:.0f} MB of Pss, {quickest['both RSS']:.0f} MB of RSS")
    for name in ("first worker", "second worker"):
        parts = ", ".join(f"{part} {seconds:.2f}" for part, seconds in quickest[name]["parts"].items())
        print(f"{name}, seconds: {parts}")
    append("startup", options.record, {"pair": options.pair, "rounds": rounds})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pair", default="tiny")
    parser.add_argument("--device", default="cpu", help="cpu, or the index of a GPU, for both workers")
    parser.add_argument("--rounds", type=int, default=3, help="the one with the least processor's time is shown")
    parser.add_argument("--record", default="benchmarks.jsonl")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _round(options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.startup", *sys.argv[1:], "--alone"]
    alone = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    with tempfile.TemporaryDirectory(prefix="ns-") as folder, EmbeddedRedis(Path(folder)):
        environment = _environment(Path(folder))
        with (
            _workers(options, environment, Path(folder), 1) as (first,),
            _workers(options, environment, Path(folder), 2) as (_, second),
        ):
            both = [_memory(first["process_id"]), _memory(second["process_id"])]
    assert first.pop("fingerprint") == second.pop("fingerprint")
    return {
        "from_pretrained": json.loads(alone.stdout.splitlines()[-1]),
        "first worker": first,
        "second worker": second,
        "both Pss": sum(memory["Pss"] for memory in both),
        "both RSS": sum(memory["RSS"] for memory in both),
    }


def _environment(home: Path) -> dict[str, str]:
    """The pair's files are where they always are, and the digests are not remembered."""
    models = load_settings().home / "cache"
    (home / "cache").mkdir()
    for found in models.glob("*"):
        if found.name != "file-digests":
            (home / "cache" / found.name).symlink_to(found)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("NIGHTSHIFT_")}
    config = {"NIGHTSHIFT_CONFIG": os.environ["NIGHTSHIFT_CONFIG"]} if "NIGHTSHIFT_CONFIG" in os.environ else {}
    return {**inherited, **config, "NIGHTSHIFT_HOME": str(home)}


@contextmanager
def _workers(
    options: argparse.Namespace, environment: Mapping[str, str], home: Path, num_ready: int
) -> Iterator[list[dict[str, Any]]]:
    """Starts one more `nightshift worker`; what is known of all that are ready then, the oldest first."""
    command = [sys.executable, "-m", "nightshift", "worker", "--pair", options.pair, "--devices", options.device]
    log = home / f"worker-{num_ready}.log"
    with log.open("wb") as stream:
        supervisor = subprocess.Popen(command, env=environment, stdout=stream, stderr=stream)
    try:
        yield _ready_workers(supervisor, home, num_ready)
    finally:
        supervisor.send_signal(signal.SIGTERM)
        supervisor.wait()


def _ready_workers(supervisor: "subprocess.Popen[bytes]", home: Path, num_ready: int) -> list[dict[str, Any]]:
    logs = [home / f"worker-{number}.log" for number in range(1, num_ready + 1)]
    deadline = time.monotonic() + _READY_SECONDS
    while not _TIMELINE.search(logs[-1].read_text()):
        assert supervisor.poll() is None, logs[-1].read_text()
        assert time.monotonic() < deadline, logs[-1].read_text()
        time.sleep(0.2)
    database = Database(f"sqlite:///{home / 'ledger.sqlite3'}")
    with database.begin(read_only=True) as tx:
        rows = tx.execute(select(Worker).where(Worker.state == "ready").order_by(Worker.started_at)).all()
    database.close()
    told_of = [_TIMELINE.search(log.read_text()) for log in logs]
    return [_worker(row, told) for row, told in zip(rows, told_of, strict=True)]


def _worker(row: Any, told: "re.Match[str]") -> dict[str, Any]:
    parts = [part.rpartition(" ") for part in told[2].split(", ")]
    return {
        "process_id": row.process_id,
        "fingerprint": row.pair_fingerprint,
        "start s": float(told[1]),
        "CPU s": _cpu_seconds(row.process_id),
        "parts": {name: float(seconds) for name, _, seconds in parts},
        **_memory(row.process_id),
    }


def _cpu_seconds(process_id: int) -> float:
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(process_id: int) -> dict[str, float]:
    """MB."""
    lines = Path(f"/proc/{process_id}/smaps_rollup").read_text().splitlines()[1:]
    lines += Path(f"/proc/{process_id}/status").read_text().splitlines()
    sizes = {line.split()[0]: int(line.split()[1]) / 1e3 * 1.024 for line in lines if line.endswith("kB")}
    return {"peak RSS": sizes["VmHWM:"], "RSS": sizes["Rss:"], "Pss": sizes["Pss:"], "anonymous": sizes["Anonymous:"]}


def _from_pretrained(options: argparse.Namespace) -> None:
    """Imports and loads, as the documentation shows; no farm, no check, no fingerprint."""
    began = time.perf_counter()
    import torch
    from diffusers import DiffusionPipeline

    from worker.loading.model_files import locate_model

    settings = load_settings()
    pair = settings.model_pair(options.pair)
    where = [
        locate_model(source, part, settings.home / "cache")
        for source, part in ((pair.base, "base"), (pair.refiner, "refiner"))
    ]
    device = "cpu" if options.device == "cpu" else f"cuda:{options.device}"
    dtype = torch.float32 if device == "cpu" else torch.float16
    base = DiffusionPipeline.from_pretrained(where[0].folder, dtype=dtype, variant=where[0].variant).to(device)
    shared = {"text_encoder_2": base.text_encoder_2, "vae": base.vae}
    DiffusionPipeline.from_pretrained(where[1].folder, dtype=dtype, variant=where[1].variant, **shared).to(device)
    figures = {"start s": time.perf_counter() - began, "CPU s": _cpu_seconds(os.getpid()), **_memory(os.getpid())}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
