"""A farm of several processes, as its operator starts them, with Redis and PostgreSQL by URL."""

import hashlib
import os
import signal
from collections import Counter
from pathlib import Path

import psutil
import pytest
from sqlalchemy import select

from farm.broker import Broker
from farm.database import Database
from farm.redis_client import redis_client
from schemas.tables import Image, Job, Pack, Result, Worker
from tests.acceptance.conftest import SMALL, Commands, wait_until


@pytest.fixture
def farm(commands: Commands, database_url: str, redis_url: str) -> Commands:
    commands.environment |= {"NIGHTSHIFT_DATABASE_URL": database_url, "NIGHTSHIFT_BROKER_URL": redis_url}
    assert commands.run("db", "upgrade").returncode == 0
    return commands


@pytest.fixture
def postgres_farm(commands: Commands, postgres_url: str, redis_url: str) -> Commands:
    commands.environment |= {"NIGHTSHIFT_DATABASE_URL": postgres_url, "NIGHTSHIFT_BROKER_URL": redis_url}
    assert commands.run("db", "upgrade").returncode == 0
    return commands


def rows(farm: Commands, statement: object) -> list:
    database = Database(farm.environment["NIGHTSHIFT_DATABASE_URL"])
    with database.begin(read_only=True) as tx:
        found = list(tx.execute(statement).all())
    database.close()
    return found


def states(farm: Commands) -> Counter:
    return Counter(state for (state,) in rows(farm, select(Job.state)))


def assert_each_image_once(farm: Commands, num_jobs: int) -> None:
    assert states(farm) == {"done": num_jobs}
    images = rows(farm, select(Result.job_id, Image.uri, Image.sha256).join(Image))
    assert len({image.job_id for image in images}) == len({image.uri for image in images}) == num_jobs
    for image in images:
        content = Path(image.uri.removeprefix("file://")).read_bytes()
        assert hashlib.sha256(content).hexdigest() == image.sha256
    assert len([path for path in (farm.home / "images").rglob("*") if path.is_file()]) == num_jobs


def ready_workers(farm: Commands) -> list:
    return rows(farm, select(Worker).where(Worker.state == "ready"))


def test_two_workers_render_each_image_once(farm: Commands, manifest: Path) -> None:
    for _ in range(2):
        farm.start("worker", "--pair", "tiny")
    farm.start("dispatcher")
    wait_until(lambda: len(ready_workers(farm)) == 2)
    farm.answer("submit", manifest, *SMALL, "--set", "num_inference_steps=30")
    watched = farm.run("watch")
    assert watched.returncode == 0, watched.stderr
    assert_each_image_once(farm, 12)
    assert len(set(rows(farm, select(Result.worker_id)))) == 2


def test_a_killed_worker_is_replaced_and_its_pack_rendered_again(postgres_farm: Commands, manifest: Path) -> None:
    farm = postgres_farm
    farm.answer("submit", manifest, *SMALL, "--set", "num_inference_steps=60")
    farm.start("dispatcher")
    farm.start("worker", "--pair", "tiny")
    running = select(Worker.process_id).join(Pack, Pack.worker_id == Worker.id).where(Pack.rendering_at.is_not(None))
    wait_until(lambda: bool(rows(farm, running)))
    os.kill(rows(farm, running)[0].process_id, signal.SIGKILL)
    assert farm.run("watch").returncode == 0
    assert_each_image_once(farm, 12)
    assert "expired" in {state for (state,) in rows(farm, select(Pack.state))}


def test_sigterm_finishes_the_pack_in_hand_and_gives_back_the_rest(postgres_farm: Commands, manifest: Path) -> None:
    farm = postgres_farm
    farm.answer("submit", manifest, *SMALL, "--set", "num_inference_steps=200", "--set", "width=64")
    farm.start("dispatcher")
    worker = farm.start("worker", "--pair", "tiny", NIGHTSHIFT_STOP_SECONDS="60")
    wait_until(lambda: bool(rows(farm, select(Pack).where(Pack.rendering_at.is_not(None)))))
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0
    assert "expired" not in {state for (state,) in rows(farm, select(Pack.state))}
    assert states(farm)["done"] > 0
    assert states(farm)["running"] == 0
    assert rows(farm, select(Worker.state)) == [("stopped",)]


def test_a_second_signal_gives_the_pack_in_hand_back_at_once(postgres_farm: Commands, manifest: Path) -> None:
    farm = postgres_farm
    farm.answer("submit", manifest, *SMALL, "--set", "num_inference_steps=999", "--set", "width=512")
    farm.start("dispatcher")
    worker = farm.start("worker", "--pair", "tiny", NIGHTSHIFT_STOP_SECONDS="3600")
    wait_until(lambda: bool(rows(farm, select(Pack).where(Pack.rendering_at.is_not(None)))))
    worker.send_signal(signal.SIGTERM)
    wait_until(lambda: "stopping" in farm.log("worker"))
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    assert {state for (state,) in rows(farm, select(Pack.state)) if state != "queued"} == {"returned"}
    assert states(farm)["running"] == 0
    assert set(rows(farm, select(Job.attempts, Job.isolated))) == {(0, False)}
    assert rows(farm, select(Worker.state)) == [("stopped",)]


DEAF = """
import sys

if "worker.process" in sys.orig_argv:
    from celery.apps.worker import Worker

    setup = Worker.setup_instance
    Worker.setup_instance = lambda self, queues=None, **options: setup(self, queues=["elsewhere"], **options)
"""


def test_a_worker_whose_consumer_went_deaf_ends_and_another_starts(postgres_farm: Commands, manifest: Path) -> None:
    """It listens to another queue. Python reads ``sitecustomize`` by itself."""
    farm = postgres_farm
    (farm.home / "sitecustomize.py").write_text(DEAF)
    path = os.pathsep.join([str(farm.home), farm.environment.get("PYTHONPATH", "")])
    farm.start("dispatcher")
    farm.start("worker", "--pair", "tiny", PYTHONPATH=path, NIGHTSHIFT_DEAF_SECONDS="5")
    farm.answer("submit", manifest, *SMALL)
    wait_until(lambda: "ended with 72; a fresh one starts in 0 s" in farm.log("worker"))
    (deaf,) = rows(farm, select(Worker).where(Worker.state == "failed"))
    assert deaf.error.startswith("the consumer is deaf")


def test_workers_end_with_a_supervisor_that_was_killed(postgres_farm: Commands) -> None:
    farm = postgres_farm
    supervisor = farm.start("worker", "--pair", "tiny")
    wait_until(lambda: len(ready_workers(farm)) == 1)
    supervisor.kill()
    wait_until(lambda: not [p for p in farm.processes() if p.status() != psutil.STATUS_ZOMBIE], 30)


def test_messages_of_strangers_are_refused_and_the_worker_goes_on(postgres_farm: Commands, manifest: Path) -> None:
    farm = postgres_farm
    farm.start("worker", "--pair", "tiny")
    wait_until(lambda: len(ready_workers(farm)) == 1)
    broker = Broker(farm.environment["NIGHTSHIFT_BROKER_URL"])
    for content in ({"version": 99, "pack_id": "0" * 32}, {"pack_id": "../etc"}, {"evil": 1}, {}):
        broker.app.send_task("nightshift.render_pack", kwargs=content, queue="nightshift.tiny")
    broker.app.send_task("os.system", args=["true"], queue="nightshift.tiny")
    broker.app.send_task("nightshift.render_pack", args=[1, 2], queue="nightshift.tiny")
    broker.publish("nightshift.tiny", ["0" * 32])
    broker.close()
    with redis_client(farm.environment["NIGHTSHIFT_BROKER_URL"]) as client:
        client.lpush("nightshift.tiny", b"not JSON", b"x" * 100_000)
    farm.start("dispatcher")
    farm.answer("submit", manifest, *SMALL)
    assert farm.run("watch").returncode == 0
    assert_each_image_once(farm, 12)
    assert "messages refused" in farm.log("worker")
    wait_until(lambda: [row.num_refused for row in rows(farm, select(Worker.num_refused))] == [8])


def test_cancel_stops_a_batch_that_is_rendering(postgres_farm: Commands, manifest: Path) -> None:
    farm = postgres_farm
    farm.environment["NIGHTSHIFT_LEASE_SECONDS"] = "3"
    batch = farm.answer("submit", manifest, *SMALL, "--set", "num_inference_steps=999")["batch_id"]
    farm.start("dispatcher")
    farm.start("worker", "--pair", "tiny")
    wait_until(lambda: bool(rows(farm, select(Pack).where(Pack.rendering_at.is_not(None)))))
    farm.answer("cancel", str(batch))
    assert farm.run("watch", str(batch)).returncode == 0
    assert states(farm)["canceled"] > 0
    assert states(farm)["canceled"] + states(farm)["done"] == 12


def test_a_store_that_refuses_is_waited_for_and_costs_no_job_an_attempt(
    postgres_farm: Commands, manifest: Path
) -> None:
    farm = postgres_farm
    farm.start("worker", "--pair", "tiny")
    wait_until(lambda: len(ready_workers(farm)) == 1)
    images = farm.home / "images"
    images.rmdir()
    images.write_text("in the way")
    farm.start("dispatcher")
    farm.answer("submit", manifest, *SMALL)
    wait_until(lambda: "cannot store an image" in farm.log("worker"))
    images.unlink()
    assert farm.run("watch").returncode == 0
    assert_each_image_once(farm, 12)
    assert set(rows(farm, select(Job.attempts, Job.isolated))) == {(0, False)}
