"""A farm of several processes, as its operator starts them, with Redis and PostgreSQL by URL."""

import hashlib
import os
import re
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import Select, select, text

from farm.broker import Broker
from farm.database import Database
from farm.job_states import STATE
from farm.redis_client import redis_client
from farm.schema import head_revision
from schemas.tables import Image, Job, Pack, Result, Worker
from tests.acceptance.conftest import SMALL, Commands, Farm, wait_until


def states(farm: Farm) -> Counter:
    return Counter(state for (state,) in farm.rows(select(STATE).where(Job.batch_id == farm.newest_batch())))


def packs(farm: Farm) -> Select:
    return select(Pack.state).where(Pack.batch_id == farm.newest_batch())


def is_rendering(farm: Farm) -> bool:
    return bool(farm.rows(packs(farm).where(Pack.rendering_at.is_not(None))))


def stored(farm: Farm) -> set[Path]:
    return {path for path in (farm.home / "images").rglob("*") if path.is_file()}


def assert_each_image_once(farm: Farm, num_jobs: int, stored_before: set[Path]) -> None:
    assert states(farm) == {"done": num_jobs}
    results = select(Result.job_id, Image.uri, Image.sha256).join(Image).join(Job, Job.id == Result.job_id)
    images = farm.rows(results.where(Job.batch_id == farm.newest_batch()))
    assert len({image.job_id for image in images}) == len({image.uri for image in images}) == num_jobs
    for image in images:
        content = Path(image.uri.removeprefix("file://")).read_bytes()
        assert hashlib.sha256(content).hexdigest() == image.sha256
    assert stored(farm) - stored_before == {Path(image.uri.removeprefix("file://")) for image in images}


def assert_two_workers_render_each_image_once(farm: Farm, manifest: Path) -> None:
    before = stored(farm)
    farm.answer("submit", "--again", manifest, *SMALL, "--set", "num_inference_steps=15")
    watched = farm.run("watch")
    assert watched.returncode == 0, watched.stderr
    assert_each_image_once(farm, 12, before)
    workers = select(Result.worker_id).join(Job, Job.id == Result.job_id).where(Job.batch_id == farm.newest_batch())
    assert len(set(farm.rows(workers))) == 2


def test_two_workers_render_each_image_once(postgres_farm: Farm, worker: subprocess.Popen, manifest: Path) -> None:
    second = postgres_farm.start_worker()
    assert_two_workers_render_each_image_once(postgres_farm, manifest)
    second.send_signal(signal.SIGTERM)
    assert second.wait(60) == 0


def test_two_workers_on_a_ledger_in_sqlite_render_each_image_once(warm_farm: Farm, manifest: Path) -> None:
    second, dispatcher = warm_farm.start_worker(), warm_farm.start("dispatcher")
    assert_two_workers_render_each_image_once(warm_farm, manifest)
    for process in (second, dispatcher):
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_a_killed_worker_is_replaced_and_its_pack_rendered_again(
    postgres_farm: Farm, worker: subprocess.Popen, manifest: Path
) -> None:
    farm, before = postgres_farm, stored(postgres_farm)
    farm.answer("submit", "--again", manifest, *SMALL, "--set", "num_inference_steps=20")
    wait_until(lambda: is_rendering(farm))
    (pid,) = farm.worker_pids()
    os.kill(pid, signal.SIGKILL)
    assert farm.run("watch").returncode == 0
    assert_each_image_once(farm, 12, before)
    assert "expired" in {state for (state,) in farm.rows(packs(farm))}
    assert worker.poll() is None
    assert farm.worker_pids().isdisjoint({pid})


@contextmanager
def ledger_of_a_newer_version(farm: Farm) -> Iterator[None]:
    """As after its `db upgrade`, beside processes that go on."""

    def become(version: str) -> None:
        with closing(Database(farm.environment["NIGHTSHIFT_DATABASE_URL"])) as database, database.begin() as tx:
            tx.execute(text("UPDATE alembic_version SET version_num = :version"), {"version": version})

    become("9999")
    try:
        yield
    finally:
        become(head_revision())


def test_a_worker_goes_on_in_a_newer_ledger_and_one_that_dies_gives_its_pack_back_and_is_not_replaced(
    postgres_farm: Farm, worker: subprocess.Popen, manifest: Path
) -> None:
    """Until its host has the new version, too, or as here the ledger the old one again."""
    farm, before, (pid,) = postgres_farm, stored(postgres_farm), postgres_farm.worker_pids()
    farm.answer("submit", "--again", manifest, *SMALL, "--set", "num_inference_steps=25")
    wait_until(lambda: is_rendering(farm))
    with ledger_of_a_newer_version(farm):
        wait_until(lambda: states(farm)["done"] > 0)
        os.kill(pid, signal.SIGKILL)
        refused = r"^nightshift: the ledger \S+ is of a newer version \(9999\) than this Nightshift \(\d+\); update"
        wait_until(lambda: re.search(refused, farm.log("worker"), re.M) is not None)
        assert not farm.rows(packs(farm).where(Pack.state == "running"))
        assert (worker.poll(), farm.worker_pids()) == (None, set())
    assert farm.run("watch").returncode == 0
    assert_each_image_once(farm, 12, before)


def test_sigterm_finishes_the_pack_in_hand_and_gives_back_the_rest(
    postgres_farm: Farm, worker: subprocess.Popen, manifest: Path
) -> None:
    farm, (pid,) = postgres_farm, postgres_farm.worker_pids()
    farm.answer("submit", "--again", manifest, *SMALL, "--set", "num_inference_steps=100", "--set", "width=64")
    wait_until(lambda: is_rendering(farm))
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0
    assert "expired" not in {state for (state,) in farm.rows(packs(farm))}
    assert states(farm)["done"] > 0
    assert states(farm)["running"] == 0
    assert farm.rows(select(Worker.state).where(Worker.process_id == pid)) == [("stopped",)]


def test_a_drained_worker_finishes_the_pack_in_hand_and_gets_a_successor_when_that_is_taken_back(
    postgres_farm: Farm, worker: subprocess.Popen, manifest: Path
) -> None:
    farm, (pid,), host = postgres_farm, postgres_farm.worker_pids(), socket.gethostname()
    farm.answer("submit", "--again", manifest, *SMALL, "--set", "num_inference_steps=100", "--set", "width=64")
    wait_until(lambda: is_rendering(farm))
    assert f"{host}/cpu" in farm.run("drain", "nobody").stderr
    told = farm.answer("drain", f"{host}/cpu")["workers"]
    assert ("ready", "tiny") in {(one["state"], one["pair"]) for one in told}
    wait_until(lambda: farm.rows(select(Worker.state).where(Worker.process_id == pid)) == [("stopped",)])
    assert "expired" not in {state for (state,) in farm.rows(packs(farm))}
    assert states(farm)["done"] > 0
    assert states(farm)["running"] == 0
    assert (worker.poll(), farm.worker_pids()) == (None, set())
    farm.answer("drain", "--undo", host)
    wait_until(lambda: bool(farm.worker_pids()))


def test_a_second_signal_gives_the_pack_in_hand_back_at_once(
    postgres_farm: Farm, worker: subprocess.Popen, manifest: Path
) -> None:
    farm, (pid,) = postgres_farm, postgres_farm.worker_pids()
    farm.answer("submit", "--again", manifest, *SMALL, "--set", "num_inference_steps=999", "--set", "width=512")
    wait_until(lambda: is_rendering(farm))
    worker.send_signal(signal.SIGTERM)
    wait_until(lambda: "stopping" in farm.log("worker"))
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    assert {state for (state,) in farm.rows(packs(farm)) if state != "queued"} == {"returned"}
    assert states(farm)["running"] == 0
    attempts = select(Job.attempts, Job.isolated).where(Job.batch_id == farm.newest_batch())
    assert set(farm.rows(attempts)) == {(0, False)}
    assert farm.rows(select(Worker.state).where(Worker.process_id == pid)) == [("stopped",)]


def test_a_worker_whose_consumer_went_deaf_ends_and_another_starts(
    commands: Commands, forked: dict[str, str], postgres_url: str, redis_url: str, manifest: Path
) -> None:
    """It listens to another queue."""
    environment = {**forked, "NIGHTSHIFT_DATABASE_URL": postgres_url, "NIGHTSHIFT_BROKER_URL": redis_url}
    with closing(Farm(commands.home, {**commands.environment, **environment}, commands.front_door)) as farm:
        assert farm.run("db", "upgrade").returncode == 0
        farm.start("dispatcher")
        deaf_worker = {"FORK_THROUGH": "tests.acceptance.deaf", "NIGHTSHIFT_DEAF_SECONDS": "5"}
        farm.start("worker", "--pair", "tiny", **deaf_worker)
        farm.answer("submit", "--again", manifest, *SMALL)
        wait_until(lambda: "ended with 72; a fresh one starts in 0 s" in farm.log("worker"))
        (deaf,) = farm.rows(select(Worker).where(Worker.state == "failed"))
        assert deaf.error.startswith("the consumer is deaf")


def test_workers_end_with_a_supervisor_that_was_killed(postgres_farm: Farm, worker: subprocess.Popen) -> None:
    others = {process.pid for process in postgres_farm.started if process is not worker}
    worker.kill()
    wait_until(lambda: {process.pid for process in postgres_farm.processes()} <= others, 30)


def test_messages_of_strangers_are_refused_and_the_worker_goes_on(
    postgres_farm: Farm, worker: subprocess.Popen, manifest: Path
) -> None:
    farm, before, (pid,) = postgres_farm, stored(postgres_farm), postgres_farm.worker_pids()
    workers = select(Worker.id, Worker.num_refused)
    refused = {row.id: row.num_refused for row in farm.rows(workers)}
    ((mine, _),) = farm.rows(workers.where(Worker.process_id == pid))
    broker = Broker(farm.environment["NIGHTSHIFT_BROKER_URL"])
    for content in ({"version": 99, "pack_id": "0" * 32}, {"pack_id": "../etc"}, {"evil": 1}, {}):
        broker.app.send_task("nightshift.render_pack", kwargs=content, queue="nightshift.tiny")
    broker.app.send_task("os.system", args=["true"], queue="nightshift.tiny")
    broker.app.send_task("nightshift.render_pack", args=[1, 2], queue="nightshift.tiny")
    broker.publish("nightshift.tiny", ["0" * 32])
    broker.close()
    with redis_client(farm.environment["NIGHTSHIFT_BROKER_URL"]) as client:
        client.lpush("nightshift.tiny", b"not JSON", b"x" * 100_000)
    farm.answer("submit", "--again", manifest, *SMALL)
    assert farm.run("watch").returncode == 0
    assert_each_image_once(farm, 12, before)
    assert "messages refused" in farm.log("worker")
    wait_until(lambda: {row.id: row.num_refused for row in farm.rows(workers)} == {**refused, mine: refused[mine] + 8})


def test_cancel_stops_a_batch_that_is_rendering(postgres_farm: Farm, worker: subprocess.Popen, manifest: Path) -> None:
    farm = postgres_farm
    batch = farm.answer("submit", "--again", manifest, *SMALL, "--set", "num_inference_steps=999")["batch_id"]
    wait_until(lambda: is_rendering(farm))
    farm.answer("cancel", "--now", str(batch))
    assert farm.run("watch", str(batch)).returncode == 0
    assert states(farm)["canceled"] > 0
    assert states(farm)["canceled"] + states(farm)["done"] == 12


def test_a_store_that_refuses_is_waited_for_and_costs_no_job_an_attempt(
    postgres_farm: Farm, worker: subprocess.Popen, manifest: Path
) -> None:
    farm, images = postgres_farm, postgres_farm.home / "images"
    images.rename(farm.home / "images of other tests")
    images.write_text("in the way")
    try:
        farm.answer("submit", "--again", manifest, *SMALL)
        wait_until(lambda: "cannot store an image" in farm.log("worker"))
    finally:
        images.unlink()
    assert farm.run("watch").returncode == 0
    assert_each_image_once(farm, 12, set())
    attempts = select(Job.attempts, Job.isolated).where(Job.batch_id == farm.newest_batch())
    assert set(farm.rows(attempts)) == {(0, False)}
