"""A farm of simulated devices on a real ledger: how busy they are, and what dispatcher, ledger and broker cost.

PostgreSQL, Redis and `nightshift dispatcher` are real, and so is every message, claim, lease and result; a device is a
timer that "renders" a pack for ``--pack-seconds``, and claims its next pack meanwhile, as a worker does. Five pairs of
three sizes each, and one odd size now and then. Exits 1 where a device is idle for more than 1 % of the time, an image
costs more than 0.5 ms, or anything is lost.

Bias: the devices' side of the ledger (claims, renewals, results) is one process here, which a farm has on its workers'
hosts; PostgreSQL runs without fsync; the load generator shares this machine's cores with what it measures.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import func, select

from benchmarks.simulated_devices import Device, Devices
from farm import batches, ledger
from farm.database import Database
from farm.schema import upgrade
from farm.workers import WorkerIdentity, note_worker, register_worker
from schemas.records import StagedJob
from schemas.spec import JobSpec
from schemas.tables import Batch, Image, Pack, Result
from tests.servers import PostgresServer, RedisServer, temporary_folder

_PACK_SIZE = 8
_SIZES = ((1024, 1024), (1152, 896), (896, 1152))
_ODD = (1536, 640)


def main() -> int:
    options = _options()
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        redis, postgres = RedisServer(folder), PostgresServer(folder)
        for server in (redis, postgres):
            server.start()
            stack.callback(server.stop)
        url = stack.enter_context(postgres.new_database())
        database = Database(url)
        stack.callback(database.close)
        upgrade(database)
        pairs = [f"pair-{number}" for number in range(options.pairs)]
        num_packs = int((options.seconds / options.pack_seconds + 8) * options.devices / options.pairs)
        for pair in pairs:
            _submit(database, pair, num_packs)
        devices = [_device(database, pairs[n % options.pairs]) for n in range(options.devices)]
        dispatcher = stack.enter_context(_dispatcher(url, redis.url, folder))
        served = {"dispatcher": dispatcher, "ledger": postgres.pid, "broker": redis.pid}
        run = Devices(database, redis.url, devices, options.pack_seconds)
        time.sleep(5)  # the dispatcher fills the queues
        return _measured(run, served, database, options)


def _measured(run: Devices, served: dict[str, int], database: Database, options: argparse.Namespace) -> int:
    before, own, since = _cpu(served), time.process_time(), time.monotonic()
    run.run(options.seconds)
    spent = {name: seconds - before[name] for name, seconds in _cpu(served).items()}
    spent["workers' side"] = time.process_time() - own
    wall, facts = time.monotonic() - since, _facts(database)
    num_images = facts["results"]
    idle = run.figures.idle_seconds / (options.devices * options.seconds)
    cost = sum(spent[name] for name in served) / num_images * 1000
    print(f"{options.devices} devices, {options.pairs} pairs, {options.pack_seconds:g} s a pack of {_PACK_SIZE},"
          f" {wall:.0f} s, {num_images:,} images ({num_images / wall:,.0f} a second)")  # fmt: skip
    print(f"{'busy':28} {1 - idle:8.2%}")
    for name, seconds in spent.items():
        print(f"{name + ', CPU ms an image':28} {seconds / num_images * 1000:8.3f}")
    changes = run.figures.num_changes / max(1, run.figures.num_packs)
    print(f"{'packs that change the size':28} {changes:8.1%}")
    print(f"{'longest wait in the queue':28} {facts['longest_wait']:6.1f} s")
    record = {"benchmark": "farm", "machine": f"{platform.machine()}, {os.cpu_count()} cores",
              "versions": {name: version(name) for name in ("sqlalchemy", "psycopg", "celery", "redis")},
              **{name: getattr(options, name) for name in ("devices", "pairs", "pack_seconds", "seconds")},
              "busy": round(1 - idle, 4), "cost_ms": round(cost, 3), "changes": round(changes, 3), **facts}  # fmt: skip
    with open(options.record, "a", encoding="utf-8") as stream:
        stream.write(json.dumps(record) + "\n")
    print(f"appended to {options.record}")
    return _verdict(idle, cost, facts)


def _verdict(idle: float, cost: float, facts: dict[str, Any]) -> int:
    wrong = [
        f"devices were idle for {idle:.2%} of the time, at most 1 %" if idle > 0.01 else "",
        f"dispatcher, ledger and broker cost {cost:.2f} ms an image, at most 0.5" if cost > 0.5 else "",
        f"{facts['expired']} packs lost their lease" if facts["expired"] else "",
        "results, images and done jobs are not equally many" if len(set(map(facts.get, _COUNTS))) > 1 else "",
    ]
    print(*filter(None, wrong), sep="\n", file=sys.stderr)
    return int(any(wrong))


_COUNTS = ("results", "images", "done")


def _facts(database: Database) -> dict[str, Any]:
    with database.begin(read_only=True) as tx:
        waited = func.max(func.extract("epoch", Pack.claimed_at - Pack.released_at))
        return {
            "results": tx.execute(select(func.count()).select_from(Result)).scalar_one(),
            "images": tx.execute(select(func.count()).select_from(Image)).scalar_one(),
            "done": int(tx.execute(select(func.sum(Batch.num_done))).scalar_one()),
            "expired": tx.execute(select(func.count()).where(Pack.state == "expired")).scalar_one(),
            "longest_wait": round(float(tx.execute(select(waited)).scalar_one()), 1),
        }


def _submit(database: Database, pair: str, num_packs: int) -> None:
    """Sizes in turn, so that neighbours never share one; every 400th job is of the odd size."""
    batch_id = batches.create_batch(database, pair, pair, 5)
    number = count(1)
    for _ in range(num_packs):
        chunk = [_job(next(number)) for _ in range(_PACK_SIZE)]
        ledger.stage_jobs(database, batch_id, chunk)
    batches.open_batch(database, batch_id)


def _job(number: int) -> StagedJob:
    width, height = _ODD if number % 400 == 0 else _SIZES[number % len(_SIZES)]
    spec = JobSpec.parse({"prompt": f"picture {number}", "seed": number, "width": width, "height": height})
    return StagedJob(number, spec, 0, {})


def _device(database: Database, pair: str) -> Device:
    worker_id = uuid.uuid4().hex
    register_worker(database, WorkerIdentity(worker_id, "simulated", 1, "simulated", pair))
    note_worker(database, worker_id, "ready")
    return Device(worker_id, pair)


@contextmanager
def _dispatcher(database_url: str, broker_url: str, home: Path) -> Iterator[int]:
    settings = {"HOME": str(home), "DATABASE_URL": database_url, "BROKER_URL": broker_url, "PACK_SIZE": str(_PACK_SIZE)}
    environment = {**os.environ, **{f"NIGHTSHIFT_{name}": value for name, value in settings.items()}}
    process = subprocess.Popen([sys.executable, "-m", "nightshift", "dispatcher"], env=environment)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def _cpu(served: dict[str, int]) -> Counter[str]:
    """Seconds so far of each process with all its children, the ended ones too where it has waited for them."""
    spent = Counter[str]()
    for name, process_id in served.items():
        process = psutil.Process(process_id)
        for one in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):  # its parent has waited for it, and counts it below
                times = one.cpu_times()
                spent[name] += times.user + times.system
        own = process.cpu_times()
        spent[name] += own.children_user + own.children_system
    return spent


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--pack-seconds", type=float, default=8.0)
    parser.add_argument("--seconds", type=float, default=48.0)
    parser.add_argument("--record", default="benchmarks.jsonl")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
