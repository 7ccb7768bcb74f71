"""A worker without its process: real ledger, real tiny pair on the CPU, real files. Its device fails as a test says."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import torch
from sqlalchemy import select, update

from farm import batches, ledger, packs
from farm.database import Database
from farm.draining import drain
from farm.image_store import ImageStore
from farm.inputs import InputStore
from farm.logs import _formatter
from farm.odd_shapes import ODD_SHAPE_SECONDS
from schemas.messages import PackMessage
from schemas.pair import BUILT_IN_PAIRS
from schemas.settings import Settings
from schemas.tables import Job, Pack, Result, Worker
from tests.integration.ledger_farm import job_rows, new_ledger, new_worker, open_batch, release_pack, staged, states
from tests.servers import PostgresServer, temporary_folder
from worker.device_process.budget import StepBudget
from worker.device_process.device_thread import DeviceThread
from worker.device_process.lease_keeper import LeaseKeeper
from worker.device_process.metrics import Stage, WorkerMetrics
from worker.device_process.pack_runner import PackRunner, Stages
from worker.device_process.preparing import Preparer
from worker.device_process.watchdog import Watchdog
from worker.environment import environment
from worker.host.burial import bury
from worker.host.exit_codes import EXIT_DEVICE_LOST
from worker.image_files.finishing import FileMaker, Finisher
from worker.loading.pipelines import LoadedPair, load_pair
from worker.passes.inputs import InputFetcher
from worker.passes.memory_probe import ProcessMemory
from worker.passes.pass_limits import PassLimits
from worker.passes.pass_measuring import PassMeasurer

NUM_STEPS = 2
SMALL = {"width": 64, "height": 64, "num_inference_steps": NUM_STEPS, "refiner": {"mode": "off"}}
NO_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
LOST = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")


@pytest.fixture(scope="module")
def pair(model_cache: Path) -> LoadedPair:
    torch.set_num_threads(1)
    alone = BUILT_IN_PAIRS["tiny"].model_copy(update={"refiner": None})
    return load_pair(alone, "cpu", model_cache)


@dataclass
class Bench:
    """A worker on a farm of its own."""

    database: Database
    runner: PackRunner
    watchdog: Watchdog
    leases: LeaseKeeper
    images: Path
    #: why its device would have ended the process
    ends: list[str] = field(default_factory=list)

    def release(self, num_jobs: int, **fields: object) -> tuple[int, str]:
        """A batch of so many jobs, and its first pack."""
        batch_id = open_batch(self.database, num_jobs, **{**SMALL, **fields})
        return batch_id, self.next_pack(batch_id)

    def next_pack(self, batch_id: int) -> str:
        released = release_pack(self.database, batch_id, 8)
        assert released is not None
        return released.id

    def run(self, pack_id: str) -> None:
        self.runner.run(PackMessage(pack_id).encode())

    def sizes(self) -> list[int]:
        """The recorded forward pass sizes, in the order of the jobs."""
        return [row.provenance["forward_pass_size"] for row in self.rows(select(Result).order_by(Result.job_id))]

    def rows(self, statement: Any) -> list[Any]:
        with self.database.begin(read_only=True) as tx:
            return list(tx.execute(statement).all())

    def pack(self, pack_id: str) -> Any:
        return self.rows(select(Pack).where(Pack.id == pack_id))[0]

    def files(self) -> list[Path]:
        return [path for path in self.images.rglob("*") if path.is_file()]

    def close(self) -> None:
        self.runner.close()
        self.watchdog.stop()
        self.database.close()


def new_bench(
    url: str, home: Path, pair: LoadedPair, end: Callable[[str], object] | None = None, measures: bool = False,
    metrics: WorkerMetrics | None = None, **chosen: Any,
) -> Bench:  # fmt: skip
    settings = Settings(home=home, database_url=url, **chosen)
    database = new_ledger(url)
    worker_id, ends = new_worker(database), list[str]()
    store = ImageStore(settings.images_url)
    limits, budget = PassLimits(settings.forward_pass_size), StepBudget(settings.render_budget_seconds)
    watchdog = Watchdog(budget, end or ends.append)
    watchdog.start()
    preparer = Preparer(pair, InputFetcher(InputStore(settings.images_url), home / "cache"), limits)
    finisher = Finisher(store, FileMaker(environment(pair), watermark=False, png_compress_level=1))
    leases = LeaseKeeper(database, worker_id, settings.lease_seconds, lambda: ends.append("drained"))
    plenty = ProcessMemory(total_bytes=2**50)
    measurer = PassMeasurer(pair, plenty, home / "pass_memory", settings.forward_pass_size, settings.memory_share)
    stages = Stages(preparer, DeviceThread(pair, limits, watchdog, measurer if measures else None), finisher,
                    metrics or WorkerMetrics())  # fmt: skip
    runner = PackRunner(database, stages, leases, settings, ends.append)
    return Bench(database, runner, watchdog, leases, home / "images", ends)


@pytest.fixture
def bench_of(tmp_path: Path, sqlite_url: str, pair: LoadedPair) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(**chosen: Any) -> Bench:
        made.append(new_bench(sqlite_url, tmp_path, pair, **chosen))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


@pytest.fixture
def bench(bench_of: Callable[..., Bench]) -> Bench:
    return bench_of()


@dataclass
class Evaluations:
    """Stands before the base's UNet: sees how many images each evaluation has, and may interfere."""

    unet: Callable[..., Any]
    interfere: Callable[[int], None] = lambda num_images: None
    num_images: list[int] = field(default_factory=list)

    def __call__(self, latents: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        self.num_images.append(len(latents) // 2)  # with guidance each image is there twice
        self.interfere(self.num_images[-1])
        return self.unet(latents, *args, **kwargs)


@pytest.fixture
def evaluations(pair: LoadedPair, monkeypatch: pytest.MonkeyPatch) -> Evaluations:
    seen = Evaluations(pair.base.unet.forward)
    monkeypatch.setattr(pair.base.unet, "forward", seen)
    return seen


def holds(most: int) -> Callable[[int], None]:
    """A device whose memory holds so many images."""

    def interfere(num_images: int) -> None:
        if num_images > most:
            raise NO_MEMORY

    return interfere


def test_a_worker_keeps_to_its_size_for_as_long_as_its_packs_let_others_wait(bench_of: Callable[..., Bench]) -> None:
    """Its queue is so long that a pack waits for hours in it."""
    bench = bench_of(queued_packs_per_worker=1000)
    batch = batches.create_batch(bench.database, "sizes", "tiny", 5)
    widths = (64, 64, 128, 64)
    ledger.stage_jobs(bench.database, batch, [staged(n, **SMALL | {"width": w}) for n, w in enumerate(widths, 1)])
    batches.open_batch(bench.database, batch)
    first, *others = (pack.id for _ in widths for pack in ledger.release_packs(bench.database, batch, 1, 1))
    bench.run(first)
    with bench.database.begin() as tx:
        tx.execute(update(Pack).values(released_at=tx.now - timedelta(seconds=ODD_SHAPE_SECONDS + 1)))
    for pack in others:
        bench.run(pack)
    begun = bench.rows(select(Pack.pack_key).order_by(Pack.rendering_at))
    assert [int(row.pack_key.split("x")[0]) for row in begun] == [64, 64, 64, 128]


def test_a_pass_that_memory_does_not_hold_is_halved_until_it_does(
    bench: Bench, evaluations: Evaluations, caplog: pytest.LogCaptureFixture
) -> None:
    evaluations.interfere = holds(2)
    batch, pack = bench.release(8)
    bench.run(pack)
    assert states(bench.database, batch) == {"done": 8}
    assert evaluations.num_images == [8, 4, *[2] * NUM_STEPS * 4]
    assert bench.sizes() == [2] * 8
    assert {job.attempts for job in job_rows(bench.database, batch)} == {0}
    assert caplog.text.count("from now on 4 of them share one") == 1
    assert caplog.text.count("from now on 2 of them share one") == 1


def test_where_memory_is_measured_a_pack_is_split_before_it_does_not_fit(
    bench_of: Callable[..., Bench], evaluations: Evaluations
) -> None:
    bench = bench_of(measures=True)
    evaluations.interfere = holds(2)
    batch, pack = bench.release(8)
    bench.run(pack)
    assert evaluations.num_images == [1, 1, 2, 2, 8, 4, *[2] * NUM_STEPS * 4]
    assert (states(bench.database, batch), bench.sizes()) == ({"done": 8}, [2] * 8)
    evaluations.num_images.clear()
    again = bench_of(measures=True)
    again.run(again.release(8)[1])
    assert evaluations.num_images == [2] * NUM_STEPS * 4


def test_later_packs_begin_with_what_fitted_and_other_sizes_with_what_the_setting_says(
    bench: Bench, evaluations: Evaluations
) -> None:
    evaluations.interfere = holds(4)
    bench.run(bench.release(8)[1])
    evaluations.num_images.clear()
    bench.run(bench.release(8, guidance_scale=3.0)[1])
    assert evaluations.num_images == [4] * NUM_STEPS * 2
    evaluations.num_images.clear()
    bench.run(bench.release(8, width=72)[1])
    assert evaluations.num_images[0] == 8


def test_one_image_that_memory_does_not_hold_fails_at_once_and_the_others_go_on(
    bench: Bench, evaluations: Evaluations
) -> None:
    def interfere(num_images: int) -> None:
        """The first half fits, of the other one only its second image."""
        calls = evaluations.num_images.count(num_images)
        if num_images == 4 or (num_images, calls) in ((2, NUM_STEPS + 1), (1, 1)):
            raise NO_MEMORY

    evaluations.interfere = interfere
    batch, pack = bench.release(4)
    bench.run(pack)
    assert [job.state for job in job_rows(bench.database, batch)] == ["done", "done", "failed", "done"]
    assert bench.sizes() == [2, 2, 1]
    failed = job_rows(bench.database, batch)[2]
    assert (failed.error_code, failed.attempts) == ("device_memory", 1)
    assert failed.error == "cpu has no memory for a forward pass of 1 image of 64 x 64"


def black(pair: LoadedPair, *dtypes: torch.dtype) -> Callable[..., Any]:
    """The decoder of a VAE whose pictures are black in these dtypes."""
    decode = pair.base.vae.decode

    def decoded(latents: torch.Tensor, **options: Any) -> tuple[torch.Tensor]:
        picture = decode(latents, **options)[0]
        return (picture - 100 if latents.dtype in dtypes else picture,)

    return decoded


def test_a_black_picture_is_decoded_once_more_in_float32_and_its_record_says_so(
    bench: Bench, pair: LoadedPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pair.base.vae, "decode", black(pair, torch.bfloat16))
    pair.base.vae.to(torch.bfloat16)
    try:
        batch, pack = bench.release(1)
        bench.run(pack)
        assert pair.base.vae.dtype == torch.bfloat16
    finally:
        pair.base.vae.to(torch.float32)
    assert states(bench.database, batch) == {"done": 1}
    assert [row.provenance["vae_float32_retry"] for row in bench.rows(select(Result))] == [True]


def test_a_picture_that_stays_black_fails_now_and_is_never_stored(
    bench: Bench, pair: LoadedPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pair.base.vae, "decode", black(pair, torch.float32))
    batch, pack = bench.release(2)
    bench.run(pack)
    assert states(bench.database, batch) == {"failed": 2}
    assert {(job.error_code, job.attempts) for job in job_rows(bench.database, batch)} == {("invalid_image", 1)}
    assert "black" in job_rows(bench.database, batch)[0].error
    assert bench.files() == []


def test_the_first_signal_lets_the_pack_in_hand_finish(bench: Bench, evaluations: Evaluations) -> None:
    evaluations.interfere = lambda _: bench.runner.stopping.gently.is_set() or bench.runner.stopping.ask()
    batch, pack = bench.release(4)
    _, other = bench.release(1)
    bench.run(pack)
    bench.run(other)
    assert states(bench.database, batch) == {"done": 4}
    assert bench.pack(other).state == "queued"


def stopped_in_the_third_evaluation(bench: Bench, evaluations: Evaluations, stop: Callable[[], None]) -> int:
    """A pack of four images, rendered one by one, while the second of which the worker is told to stop."""

    def interfere(_: int) -> None:
        if len(evaluations.num_images) == NUM_STEPS + 1:
            stop()

    evaluations.interfere = interfere
    batch, pack = bench.release(4)
    bench.run(pack)
    assert len(evaluations.num_images) == NUM_STEPS + 1
    assert bench.pack(pack).state == "returned"
    return batch


def test_the_second_signal_gives_the_pack_back_and_keeps_what_is_rendered(
    bench_of: Callable[..., Bench], evaluations: Evaluations
) -> None:
    bench = bench_of(forward_pass_size=1)

    def stop() -> None:
        bench.runner.stopping.ask()
        bench.runner.stopping.ask()

    batch = stopped_in_the_third_evaluation(bench, evaluations, stop)
    assert states(bench.database, batch) == {"done": 1, "pending": 3}
    assert {(job.attempts, job.isolated) for job in job_rows(bench.database, batch)} == {(0, False)}


def test_a_pack_that_takes_longer_than_a_stopping_worker_has_goes_back(
    bench_of: Callable[..., Bench], evaluations: Evaluations
) -> None:
    bench = bench_of(forward_pass_size=1, stop_seconds=0.01)

    def stop() -> None:
        bench.runner.stopping.ask()
        assert bench.runner.stopping.at_once.wait(10)

    batch = stopped_in_the_third_evaluation(bench, evaluations, stop)
    assert states(bench.database, batch) == {"done": 1, "pending": 3}


def test_a_refusing_store_does_not_keep_a_worker_that_stops_at_once(bench: Bench) -> None:
    bench.images.write_text("in the way")
    batch, pack = bench.release(2)
    running = Thread(target=bench.run, args=(pack,))
    running.start()
    for _ in range(2):
        bench.runner.stopping.ask()
    running.join(30)
    assert not running.is_alive()
    assert states(bench.database, batch) == {"pending": 2}


def taken_over(bench: Bench, evaluations: Evaluations, **fields: object) -> int:
    """Runs a pack that is another worker's when the first evaluation has ended."""
    batch, pack = bench.release(1, **fields)
    thief = new_worker(bench.database)

    def interfere(_: int) -> None:
        if len(evaluations.num_images) == 1:
            with bench.database.begin() as tx:
                tx.execute(update(Pack).where(Pack.id == pack).values(worker_id=thief))

    evaluations.interfere = interfere
    bench.run(pack)
    assert bench.rows(select(Result)) == []
    assert states(bench.database, batch) == {"running": 1}
    assert bench.pack(pack).worker_id == thief
    return len(evaluations.num_images)


def test_a_worker_that_lost_its_lease_can_record_nothing(bench: Bench, evaluations: Evaluations) -> None:
    assert taken_over(bench, evaluations) == NUM_STEPS


def test_a_worker_that_hears_of_its_lost_lease_stops(bench_of: Callable[..., Bench], evaluations: Evaluations) -> None:
    bench = bench_of(lease_seconds=0.1)
    bench.leases.start()
    assert taken_over(bench, evaluations, num_inference_steps=999) < 999
    bench.leases.stop()


def test_a_worker_that_hears_that_it_is_drained_leaves_once(bench_of: Callable[..., Bench]) -> None:
    bench = bench_of(lease_seconds=60)
    assert bench.leases.look()
    assert bench.ends == []
    drain(bench.database, bench.leases.worker_id)
    assert bench.leases.look()
    assert bench.leases.look()
    assert bench.ends == ["drained"]
    assert bench.leases.is_draining.is_set()


def test_a_lost_device_ends_the_process_and_only_the_pack_on_it_is_suspected(
    bench: Bench, evaluations: Evaluations
) -> None:
    batch, pack = bench.release(2)
    _, second = bench.release(1)
    waits = Thread(target=bench.run, args=(second,))

    def interfere(_: int) -> None:
        waits.start()
        while bench.pack(second).state != "running":
            waits.join(0.01)
        raise LOST

    evaluations.interfere = interfere
    bench.run(pack)
    waits.join()
    assert bench.ends == ["cpu failed: CUDA error: an illegal memory access was encountered"]
    assert bench.pack(second).state == "returned"
    death = bury(bench.database, bench.leases.worker_id, EXIT_DEVICE_LOST, 3)
    jobs = job_rows(bench.database, batch)
    assert death.job_ids == {job.id for job in jobs}
    assert {(job.state, job.isolated, job.attempts, job.error_code) for job in jobs} == {
        ("pending", True, 0, "device_lost")
    }


def test_a_suspect_has_the_worker_to_itself_and_its_try_begins_before_it_is_prepared(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a job that kills while it is prepared would be charged to the one that renders beside it."""
    batch, pack = bench.release(3)
    dead, prepared, begun = new_worker(bench.database), Preparer.prepared, list[Any]()
    ledger.claim_pack(bench.database, pack, dead, 60)
    ledger.expire_leases(bench.database, 3, dead)

    def looking(preparer: Preparer, *args: Any) -> Any:
        under_way = select(Pack.id).where(Pack.rendering_at.is_not(None), Pack.ended_at.is_(None))
        begun.append([row.id for row in bench.rows(under_way)])
        return prepared(preparer, *args)

    monkeypatch.setattr(Preparer, "prepared", looking)
    _, other = bench.release(2)
    suspects = [bench.next_pack(batch) for _ in range(3)]
    threads = [Thread(target=bench.run, args=(one,)) for one in (suspects[0], suspects[1], other, suspects[2])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one for one in begun if one) == sorted([one] for one in suspects)
    assert begun.count([]) == 2  # the two jobs of the pack that nobody suspects
    assert states(bench.database, batch) == {"done": 3}


def test_a_pack_that_was_claimed_ahead_goes_back_where_its_hours_are_over_when_its_turn_comes(
    bench: Bench, evaluations: Evaluations
) -> None:
    (_, first), (batch, ahead) = bench.release(1), bench.release(1)
    waits = Thread(target=bench.run, args=(ahead,))

    def interfere(_: int) -> None:
        if not waits.ident:
            waits.start()
            while bench.pack(ahead).state != "running":
                waits.join(0.01)
            with bench.database.begin() as tx:
                tx.execute(update(Pack).where(Pack.id == ahead).values(start_before=tx.now))

    evaluations.interfere = interfere
    bench.run(first)
    waits.join()
    assert bench.pack(first).state == "finished"
    assert (bench.pack(ahead).state, bench.pack(ahead).rendering_at) == ("returned", None)
    assert [(job.state, job.attempts, job.isolated) for job in job_rows(bench.database, batch)] == [
        ("pending", 0, False)
    ]


def test_a_suspect_that_waits_for_the_others_goes_back_when_the_worker_stops(
    bench: Bench, evaluations: Evaluations
) -> None:
    batch, pack = bench.release(1)
    dead = new_worker(bench.database)
    ledger.claim_pack(bench.database, pack, dead, 60)
    ledger.expire_leases(bench.database, 3, dead)
    suspect, (_, other) = bench.next_pack(batch), bench.release(1)
    waits = Thread(target=bench.run, args=(suspect,))

    def interfere(_: int) -> None:
        if not waits.ident:
            waits.start()
            while bench.pack(suspect).state != "running":
                waits.join(0.01)
            bench.runner.stopping.ask()
            waits.join()

    evaluations.interfere = interfere
    bench.run(other)
    assert (bench.pack(suspect).state, bench.pack(suspect).rendering_at) == ("returned", None)
    assert bench.pack(other).state == "finished"


def test_what_was_rendered_before_the_device_was_lost_is_recorded(
    bench: Bench, evaluations: Evaluations, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first pack is still being written when the second one ends the process."""
    (first, pack), (_, second) = bench.release(2), bench.release(1)
    put, rendered, lost = ImageStore.put, Event(), Event()

    def slow_put(store: ImageStore, content: bytes, sha256: str, suffix: str) -> str:
        rendered.set()
        assert lost.wait(30)
        return put(store, content, sha256, suffix)

    def interfere(num_images: int) -> None:
        if num_images == 1:
            lost.set()
            raise LOST

    monkeypatch.setattr(ImageStore, "put", slow_put)
    evaluations.interfere = interfere
    writes = Thread(target=bench.run, args=(pack,))
    writes.start()
    assert rendered.wait(30)
    bench.runner._device_lost = lambda sentence: bench.ends.append(f"{states(bench.database, first)}")
    bench.run(second)
    writes.join()
    assert bench.ends == ["{<JobState.DONE: 'done'>: 2}"]


def test_a_step_that_never_ends_ends_the_process(bench_of: Callable[..., Bench], evaluations: Evaluations) -> None:
    freed = Event()
    bench = bench_of(render_budget_seconds=0.1, end=lambda sentence: (bench.ends.append(sentence), freed.set()))
    evaluations.interfere = lambda _: None if freed.wait(30) else pytest.fail("the watchdog sleeps")
    bench.run(bench.release(1)[1])
    assert bench.ends == ["the device hangs: no step of a forward pass of 1 images of 64 x 64 ended in 0.1 s"]


def test_refused_messages_are_counted_and_strange_packs_are_said_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    for content in ({}, {"version": 99, "pack_id": "0" * 32}):
        bench.runner.run(content)
    for digit in "01":
        bench.run(digit * 32)
    _, pack = bench.release(1)
    bench.run(pack)
    bench.run(pack)  # a doubled message is nothing to speak of
    assert [row.num_refused for row in bench.rows(select(Worker))] == [2]
    said = [record.message for record in caplog.records if "broker_prefix" in record.message]
    assert len(said) == 1
    assert "0" * 32 in said[0]


def test_a_ledger_that_goes_away_while_a_pack_renders_gets_its_images_when_it_is_back(
    pair: LoadedPair, evaluations: Evaluations, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with temporary_folder() as folder:
        server = PostgresServer(folder)
        server.start()
        with server.new_database() as url:
            bench = new_bench(url, tmp_path, pair)
            batch, pack = bench.release(2)
            evaluations.interfere = lambda _: server.stop() if len(evaluations.num_images) == 1 else None
            running = Thread(target=bench.run, args=(pack,))
            running.start()
            while "trying again" not in caplog.text:
                running.join(0.05)
            server.start()
            running.join(60)
            assert states(bench.database, batch) == {"done": 2}
            assert {job.attempts for job in job_rows(bench.database, batch)} == {0}
            assert len(evaluations.num_images) == NUM_STEPS
            bench.close()
        server.stop()


def test_what_is_logged_about_a_pack_says_its_batch_its_number_and_its_jobs_from_each_thread(
    bench: Bench, evaluations: Evaluations, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three jobs the second does not fit: it is said of it alone. Other threads log about the whole pack."""
    log, put = logging.getLogger("nightshift.worker"), ImageStore.put

    def interfere(num_images: int) -> None:
        log.warning("on the device")
        if evaluations.num_images.count(1) == 2 or num_images > 1:
            raise NO_MEMORY

    def said_put(*args: Any) -> str:
        log.warning("in a finisher")
        return put(*args)

    monkeypatch.setattr(ImageStore, "put", said_put)
    caplog.handler.setFormatter(_formatter("json", "cuda:0"))
    evaluations.interfere = interfere
    batch, pack = bench.release(2)
    bench.run(pack)
    log.warning("afterwards")
    ids = [job.id for job in job_rows(bench.database, batch)]
    said = {line["message"]: line for line in map(json.loads, caplog.text.splitlines())}
    about = {message: (line.get("batch"), line.get("pack"), line.get("jobs")) for message, line in said.items()}
    (failed,) = (job.id for job in job_rows(bench.database, batch) if job.state == "failed")
    (sentence,) = (message for message in about if "jobs of pack" in message)
    assert about["on the device"] == about["in a finisher"] == (batch, pack, ids)
    assert about[sentence] == (batch, pack, [failed])
    assert about["afterwards"] == (None, None, None)


@dataclass
class Noted(WorkerMetrics):
    """What it was told, in its order."""

    told: list[Any] = field(default_factory=list)
    stages: list[dict[str, float]] = field(default_factory=list)

    def images(self, num_images: int) -> None:
        self.told.append(("images", num_images))

    def failed(self, code: str, num_jobs: int) -> None:
        self.told.append((code, num_jobs))

    def given_back(self, num_jobs: int) -> None:
        self.told.append(("given back", num_jobs))

    def lease_lost(self) -> None:
        self.told.append("lost")

    def pack_seconds(self, seconds: Mapping[Stage, float]) -> None:
        self.stages.append(dict(seconds))


def test_what_a_worker_made_failed_and_gave_back_is_noted(
    bench_of: Callable[..., Bench], evaluations: Evaluations
) -> None:
    noted = Noted()
    bench = bench_of(metrics=noted, forward_pass_size=1)
    taken_over(bench, evaluations)
    assert noted.told == ["lost", ("given back", 0)]
    noted.told.clear()
    evaluations.interfere = holds(1)
    bench.run(bench.release(2)[1])
    assert noted.told == [("images", 1), ("images", 1)]
    assert set(noted.stages[-1]) == {"prepare", "wait", "render", "finish", "record"}
    assert noted.stages[-1]["render"] > noted.stages[-1]["wait"] > 0
    noted.told.clear()
    evaluations.interfere = holds(0)
    bench.run(bench.release(1)[1])
    assert noted.told == [("device_memory", 1)]
    assert set(noted.stages[-1]) == {"prepare", "wait", "render"}
    noted.told.clear()
    evaluations.num_images.clear()
    stopped_in_the_third_evaluation(bench, evaluations, lambda: [bench.runner.stopping.ask() for _ in range(2)])
    assert noted.told == [("images", 1), ("given back", 3)]


def test_a_pack_counts_as_waiting_from_when_its_message_went_out(bench: Bench) -> None:
    _, pack = bench.release(1)
    assert not packs.has_waited(bench.database, "tiny", 0)
    packs.note_published(bench.database, [pack])
    assert packs.has_waited(bench.database, "tiny", -1)
    assert not packs.has_waited(bench.database, "tiny", 60)
    assert not packs.has_waited(bench.database, "sdxl", -1)
    bench.run(pack)
    assert not packs.has_waited(bench.database, "tiny", -1)
    assert {state for (state,) in bench.rows(select(Job.state))} == {"done"}
