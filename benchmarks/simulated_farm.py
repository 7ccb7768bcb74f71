"""A farm whose devices are simulated: real dispatcher, PostgreSQL and Redis, and what each of them costs.

Every message, claim, lease and result is real; time is simulated (``simulated_devices``). The jobs are of three sizes
in turn, and every 400th is of an odd one.
"""

import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psutil
from sqlalchemy import func, select

from benchmarks.simulated_devices import PACKS_PER_DEVICE, Clock, Device, Devices, Figures
from farm import batches, ledger
from farm.broker import Broker
from farm.database import Database
from farm.schema import upgrade
from farm.workers import WorkerIdentity, note_worker, register_worker
from producer.dispatching.dispatcher import Dispatcher
from schemas.records import StagedJob
from schemas.settings import Settings
from schemas.spec import JobSpec
from schemas.tables import Batch, Image, Pack, Result
from schemas.written_spec import WrittenSpec
from tests.servers import PostgresServer, RedisServer, temporary_folder

PACK_SIZE = 8
#: packs that each device renders before anything is counted
WARM_UP = 2
_CHUNK = 1_000
_SIZES = ((1024, 1024), (1152, 896), (896, 1152))
_ODD = (1536, 640)


@dataclass(frozen=True)
class Size:
    """How large a farm, and for how long: ``num_packs`` for each device after the warm-up."""

    num_devices: int
    num_pairs: int
    num_packs: int
    pack_seconds: float


@dataclass(frozen=True)
class Measured:
    """After the warm-up. ``cpu_ms``: an image, of dispatcher, ledger (PostgreSQL) and broker (Redis); ``worker_ms``:
    an image, of what the devices ask, in this process. ``facts``: what the ledger says of the whole run."""

    num_images: int
    cpu_ms: dict[str, float]
    worker_ms: float
    figures: Figures
    facts: dict[str, Any]

    @property
    def together_ms(self) -> float:
        return sum(self.cpu_ms.values())

    @property
    def is_each_done_once(self) -> bool:
        """There are as many results as images, and as many done jobs."""
        return len({self.facts[name] for name in ("results", "images", "done")}) == 1

    def print_costs(self) -> None:
        for name, milliseconds in self.cpu_ms.items():
            print(f"{name + ', CPU ms an image':36} {milliseconds:8.3f}")
        print(f"{'together':36} {self.together_ms:8.3f}")
        print(f"{'and the workers, CPU ms an image':36} {self.worker_ms:8.3f}")


@dataclass
class SimulatedFarm:
    size: Size
    devices: Devices
    dispatcher: Dispatcher
    database: Database
    #: name → process
    servers: dict[str, int]
    #: the processor's time of the dispatcher so far
    tick_seconds: float = 0.0

    def tick(self) -> None:
        began = time.process_time()
        self.dispatcher.tick()
        self.tick_seconds += time.process_time() - began

    def measured(self) -> Measured:
        """Lets the warm-up pass, and then the time that is measured."""
        self.devices.pass_time(WARM_UP * self.size.pack_seconds)
        _analyze(self.database)
        self.devices.begin_to_count()
        before = self._cpu()
        self.devices.pass_time(self.size.num_packs * self.size.pack_seconds)
        self.devices.end_counting()
        after, figures = self._cpu(), self.devices.figures
        num_images = figures.num_packs * PACK_SIZE
        spent = {name: (after[name] - before[name]) / num_images * 1000 for name in sorted(after)}
        return Measured(num_images, spent, figures.cpu_seconds / num_images * 1000, figures, _facts(self.database))

    def _cpu(self) -> Counter[str]:
        return Counter({**cpu_seconds(self.servers), "dispatcher": self.tick_seconds})


@contextmanager
def simulated_farm(size: Size) -> Iterator[SimulatedFarm]:
    """With jobs for all of its time, and its devices started."""
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        redis, postgres = RedisServer(folder), PostgresServer(folder)
        for server in (redis, postgres):
            server.start()
            stack.callback(server.stop)
        clock, url = Clock(), stack.enter_context(postgres.new_database())
        database = stack.enter_context(closing(Database(url, clock)))
        upgrade(database)
        pairs = [f"pair-{number}" for number in range(size.num_pairs)]
        for pair in pairs:
            _submit(database, pair, int((size.num_packs + WARM_UP + 6) * size.num_devices / size.num_pairs))
        _analyze(database, "jobs")  # alone: of a table known as empty PostgreSQL would read every row, ever after
        devices = [simulated_device(database, pairs[n % size.num_pairs]) for n in range(size.num_devices)]
        broker = stack.enter_context(closing(Broker(redis.url)))
        settings = Settings(home=folder, pack_size=PACK_SIZE, queued_packs_per_worker=PACKS_PER_DEVICE)
        simulated = Devices(database, redis.url, devices, clock)
        servers = {"ledger": postgres.pid, "broker": redis.pid}
        farm = SimulatedFarm(size, simulated, Dispatcher(database, broker, settings), database, servers)
        farm.devices.start(size.pack_seconds, farm.tick, settings.tick_seconds)
        yield farm


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
    numbers = range(1, num_packs * PACK_SIZE + 1)
    for start in range(0, len(numbers), _CHUNK):
        ledger.stage_jobs(database, batch_id, [simulated_job(number) for number in numbers[start : start + _CHUNK]])
    batches.open_batch(database, batch_id)


def simulated_job(number: int) -> StagedJob:
    width, height = _ODD if number % 400 == 0 else _SIZES[number % len(_SIZES)]
    spec = JobSpec.parse({"prompt": f"picture {number}", "seed": number, "width": width, "height": height})
    return StagedJob.of(number, WrittenSpec.of(spec), 0, {})


def _analyze(database: Database, table: str = "") -> None:
    """As autovacuum does each minute, in which less time passes here."""
    with database.begin(read_only=True) as tx:
        tx.connection.exec_driver_sql(f"ANALYZE {table}")


def simulated_device(database: Database, pair: str) -> Device:
    worker_id = uuid.uuid4().hex
    register_worker(database, WorkerIdentity(worker_id, "simulated", 1, "simulated", pair))
    note_worker(database, worker_id, "ready")
    return Device(worker_id, pair)


def cpu_seconds(served: dict[str, int]) -> Counter[str]:
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
