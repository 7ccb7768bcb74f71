"""A farm of simulated devices on a real ledger: how busy they are, and what dispatcher, ledger and broker cost.

Dispatcher, PostgreSQL and Redis are real, and so is every message, claim, lease and result. A device "renders" a pack
for ``--pack-seconds`` and claims its next one meanwhile, as a worker does; time is simulated (``simulated_devices``).
Five pairs of three sizes each, and one odd size now and then. Exits 1 where devices are idle for more than 1 % of the
time, an image costs more than ``--most-ms``, a pack waits for too long, or anything is lost.

Bias: asking takes no time here, so busy is what the scheduling allows, and a farm that asks for more than its servers'
processors give is slower than that; PostgreSQL runs without fsync; one connection asks for all.
"""

import argparse
import json
import os
import platform
import sys
import time
import uuid
from collections import Counter
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from importlib.metadata import version
from itertools import count
from typing import Any

import psutil
from sqlalchemy import func, select

from benchmarks.simulated_devices import Clock, Device, Devices
from farm import batches, ledger
from farm.broker import Broker
from farm.database import Database
from farm.packs import ODD_SHAPE_SECONDS
from farm.schema import upgrade
from farm.workers import WorkerIdentity, note_worker, register_worker
from producer.dispatcher import Dispatcher
from schemas.records import StagedJob
from schemas.settings import Settings
from schemas.spec import JobSpec
from schemas.tables import Batch, Image, Pack, Result
from schemas.written_spec import WrittenSpec
from tests.servers import PostgresServer, RedisServer, temporary_folder

_PACK_SIZE = 8
#: packs that each device renders before anything is counted
_WARM_UP = 2
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
        clock, url = Clock(), stack.enter_context(postgres.new_database())
        database = stack.enter_context(closing(Database(url, clock)))
        upgrade(database)
        pairs = [f"pair-{number}" for number in range(options.pairs)]
        num_packs = int((options.packs + _WARM_UP + 6) * options.devices / options.pairs)
        for pair in pairs:
            _submit(database, pair, num_packs)
        devices = [_device(database, pairs[n % options.pairs]) for n in range(options.devices)]
        broker = stack.enter_context(closing(Broker(redis.url)))
        settings = Settings(home=folder, pack_size=_PACK_SIZE)
        farm = _Farm(Devices(database, redis.url, devices, clock), Dispatcher(database, broker, settings), database)
        farm.devices.start(options.pack_seconds, farm.tick, settings.tick_seconds)
        return _measured(farm, {"ledger": postgres.pid, "broker": redis.pid}, options)


@dataclass
class _Farm:
    devices: Devices
    dispatcher: Dispatcher
    database: Database
    #: the processor's time of the dispatcher so far
    tick_seconds: float = 0.0

    def tick(self) -> None:
        began = time.process_time()
        self.dispatcher.tick()
        self.tick_seconds += time.process_time() - began


def _measured(farm: _Farm, servers: dict[str, int], options: argparse.Namespace) -> int:
    farm.devices.pass_time(_WARM_UP * options.pack_seconds)
    farm.devices.begin_to_count()
    before, seconds = {**_cpu(servers), "dispatcher": farm.tick_seconds}, options.packs * options.pack_seconds
    farm.devices.pass_time(seconds)
    farm.devices.end_counting()
    after, figures = {**_cpu(servers), "dispatcher": farm.tick_seconds}, farm.devices.figures
    num_images = figures.num_packs * _PACK_SIZE
    spent = {name: (after[name] - before[name]) / num_images * 1000 for name in sorted(after)}
    busy = 1 - figures.idle_seconds / (options.devices * seconds)
    facts = _facts(farm.database)
    print(f"{options.devices:,} devices, {options.pairs} pairs, {options.pack_seconds:g} s a pack of {_PACK_SIZE}:"
          f" {num_images:,} images in {seconds:g} simulated seconds")  # fmt: skip
    print(f"{'busy':36} {busy:8.2%}")
    for name, milliseconds in spent.items():
        print(f"{name + ', CPU ms an image':36} {milliseconds:8.3f}")
    print(f"{'together':36} {sum(spent.values()):8.3f}")
    print(f"{'and the workers, CPU ms an image':36} {figures.cpu_seconds / num_images * 1000:8.3f}")
    changes = figures.num_changes / figures.num_packs
    print(f"{'packs that change their size':36} {changes:8.1%}")
    print(f"{'longest wait in the queue':36} {facts['longest_wait']:6.1f} s")
    record = {"benchmark": "farm", "machine": f"{platform.machine()}, {os.cpu_count()} cores",
              "versions": {name: version(name) for name in ("sqlalchemy", "psycopg", "celery", "redis")},
              **{name: getattr(options, name) for name in ("devices", "pairs", "pack_seconds", "packs")},
              "busy": round(busy, 4), "cpu_ms": {name: round(one, 3) for name, one in spent.items()},
              "changes": round(changes, 3), **facts}  # fmt: skip
    with open(options.record, "a", encoding="utf-8") as stream:
        stream.write(json.dumps(record) + "\n")
    print(f"appended to {options.record}")
    return _verdict(1 - busy, sum(spent.values()), facts, options)


def _verdict(idle: float, cost: float, facts: dict[str, Any], options: argparse.Namespace) -> int:
    longest = ODD_SHAPE_SECONDS + 3 * options.pack_seconds
    wrong = [
        f"devices were idle for {idle:.2%} of the time, at most 1 %" if idle > 0.01 else "",
        f"an image cost {cost:.2f} ms, at most {options.most_ms:g}" if cost > options.most_ms else "",
        f"a pack waited for {facts['longest_wait']} s" if facts["longest_wait"] > longest else "",
        f"{facts['expired']} packs lost their lease" if facts["expired"] else "",
        "results, images and done jobs are not equally many" if len({facts[name] for name in _COUNTS}) > 1 else "",
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
    return StagedJob.of(number, WrittenSpec.of(spec), 0, {})


def _device(database: Database, pair: str) -> Device:
    worker_id = uuid.uuid4().hex
    register_worker(database, WorkerIdentity(worker_id, "simulated", 1, "simulated", pair))
    note_worker(database, worker_id, "ready")
    return Device(worker_id, pair)


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
    parser.add_argument("--packs", type=int, default=4, help="that each device renders after the warm-up")
    parser.add_argument("--most-ms", type=float, default=0.5, help="of CPU an image, of dispatcher, ledger and broker")
    parser.add_argument("--record", default="benchmarks.jsonl")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
