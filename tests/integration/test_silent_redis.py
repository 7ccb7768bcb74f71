"""A Redis that hangs: it takes connections and never answers. Nobody waits for it for long, and who asks is told.

The silent one ends after a while, and with it a test of who would wait for ever: "Connection reset" is no time-out.
"""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Event, Thread, Timer

import pytest
from prometheus_client import CollectorRegistry
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from farm import batches
from farm.broker import open_broker
from farm.database import Database
from farm.redis_client import redis_client
from producer.dispatching import queue_lengths
from producer.dispatching.dispatcher import Dispatcher
from producer.dispatching.metrics import FarmCollector
from producer.dispatching.queue_lengths import QueueLengths
from producer.submitting.first_tick import first_tick
from producer.upkeep import server_checks
from producer.web.app import web_app
from producer.web.pulse import Pulse
from producer.web.redis_watch import RedisWatch, does_answer
from schemas.errors import BrokerUnavailableError, NightshiftError
from schemas.settings import Settings
from tests.integration.ledger_farm import new_ledger, new_worker, open_batch, states
from tests.integration.web_client import HERE
from tests.integration.web_farm import farm_with_page
from worker.device_process.hands import Hands
from worker.device_process.progress_watchdog import Listening, ProgressWatchdog

SAID = r"Redis at redis://127\.0\.0\.1:\d+/0 does not answer: Timeout"
PATIENCE_SECONDS = 30.0
_SILENT_SECONDS = 120.0  # longer than all tests of this module take


@pytest.fixture(scope="module")
def silent_url() -> Iterator[str]:
    """Connections wait in the kernel, and nobody takes them from there."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        end = Timer(_SILENT_SECONDS, listener.close)
        end.start()
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
        end.cancel()


@pytest.fixture
def settings(tmp_path: Path, sqlite_url: str, silent_url: str) -> Settings:
    return Settings(home=tmp_path, database_url=sqlite_url, broker_url=silent_url, broker_timeout_seconds=0.05,
                    tick_seconds=0.01)  # fmt: skip


@pytest.fixture
def ledger(sqlite_url: str) -> Iterator[Database]:
    with closing(new_ledger(sqlite_url)) as database:
        yield database


def test_every_question_is_given_up_and_says_so(settings: Settings) -> None:
    with closing(open_broker(settings)) as broker:
        for ask in (broker.info, lambda: broker.queue_length("a"), lambda: broker.publish("a", ["0" * 32])):
            with pytest.raises(BrokerUnavailableError, match=SAID):
                ask()
        assert broker.app.conf.broker_transport_options["socket_timeout"] == 0.05


def test_the_doctor_says_so_and_what_to_do(settings: Settings) -> None:
    with pytest.raises(NightshiftError, match=SAID + ".+; start it, or correct NIGHTSHIFT_BROKER_URL"):
        server_checks.redis(settings)
    assert server_checks.redis_version(settings) == "not known while it does not answer"


def test_who_submits_is_told_that_the_batch_is_safe(settings: Settings, ledger: Database) -> None:
    batch_id = open_batch(ledger, 2)
    new_worker(ledger)
    with pytest.raises(BrokerUnavailableError, match=SAID + f".+; batch {batch_id} is safe .+: do not submit it again"):
        first_tick(ledger, settings, batch_id)


def test_a_dispatcher_goes_on_with_what_needs_no_redis_and_stops_when_it_is_told_to(
    settings: Settings, ledger: Database
) -> None:
    batch_id, stop = open_batch(ledger, 2), Event()
    new_worker(ledger)
    with closing(open_broker(settings)) as broker:
        dispatcher = Dispatcher(ledger, broker, settings)
        with pytest.raises(BrokerUnavailableError, match=SAID):
            dispatcher.tick()
        assert states(ledger, batch_id) == {"queued": 2}  # and the message is sent again
        batches.cancel_batch(ledger, batch_id)
        runs = Thread(target=dispatcher.run, args=(stop,), daemon=True)
        runs.start()
        while states(ledger, batch_id) != {"canceled": 2}:
            assert runs.is_alive()
        stop.set()
        runs.join(PATIENCE_SECONDS)
        assert not runs.is_alive()


def test_a_worker_that_looks_whether_packs_wait_goes_on(settings: Settings, ledger: Database) -> None:
    hands = Hands()
    with closing(open_broker(settings)) as broker:
        listening = Listening(ledger, broker, "tiny", hands, 60.0)
        assert hands.idle_seconds()
        with pytest.raises(BrokerUnavailableError, match=SAID):
            listening.look()
        assert ProgressWatchdog(listening, pytest.fail, Event()).look()


def test_prometheus_is_told_that_redis_is_down_while_its_answer_is_still_waited_for(
    settings: Settings, ledger: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def num_asking() -> int:
        return [thread.name for thread in threading.enumerate()].count("queue-lengths")

    monkeypatch.setattr(queue_lengths, "_SECONDS", 0.05)
    open_batch(ledger, 2)
    registry = CollectorRegistry()
    patient = settings.model_copy(update={"broker_timeout_seconds": 2 * _SILENT_SECONDS})
    registry.register(FarmCollector(ledger, patient))
    assert registry.get_sample_value("nightshift_redis_up") == 0
    assert registry.get_sample_value("nightshift_jobs", {"state": "pending", "priority": "5"}) == 2
    assert num_asking() == 1
    queues = QueueLengths(patient)
    assert [queues.of(set()), queues.of({"tiny"}), num_asking()] == [None, None, 2]


# --- the page --------------------------------------------------------------------------------------------------------


def test_who_submits_over_http_has_the_answer_before_redis_is_asked(settings: Settings, tmp_path: Path) -> None:
    given = settings.model_dump(include={"broker_url", "broker_timeout_seconds"})
    with farm_with_page(tmp_path / "web", **given) as farm:
        new_worker(farm.database)
        seen = []

        def noting(app: ASGIApp) -> ASGIApp:
            async def asked(scope: Scope, receive: Receive, send: Send) -> None:
                async def sending(message: Message) -> None:
                    await send(message)
                    if message["type"] == "http.response.body" and scope["method"] == "POST":
                        seen.append(states(farm.database, farm.num_batches))

                await app(scope, receive, sending)

            return asked

        with TestClient(noting(web_app(farm.page)), base_url="http://127.0.0.1:8470", client=(HERE, 50_000)) as client:
            for path, body in (
                ("/api/v1/batches", {"json": {"rows": [{"prompt": "a cat"}]}}),
                ("/api/v1/manifests?file=a.txt", {"content": b"a dog"}),
                ("/try", {"data": {"prompt": "a fox", "pair": "tiny"}, "follow_redirects": False}),
            ):
                assert client.post(path, **body).status_code in (201, 303)
            assert seen == [{"pending": 1}] * 3
            assert states(farm.database, 1) == {"queued": 1}  # by the tick that followed, in vain
            page = client.get("/batches/3/jobs/1").text
        assert "This job is queued" in page
        assert "Nothing is lost: what waits is rendered once it is back." in page


def test_who_looks_at_a_page_is_told_and_nothing_else_waits(settings: Settings, ledger: Database) -> None:
    async def listen() -> None:
        news, key = {}, ("batch", str(open_batch(ledger, 2)))
        async with asyncio.timeout(PATIENCE_SECONDS):
            with closing(Pulse(ledger, settings, look_seconds=0.01)) as pulse, pulse.listener() as listener:
                while news.get(("redis", "")) != {"answers": False} or key not in news:
                    news |= await listener.news(5.0)
        assert news["ledger", ""] == {"answers": True}

    asyncio.run(listen())


def test_a_redis_is_believed_to_be_well_until_it_is_known_better(settings: Settings) -> None:
    watch = RedisWatch(settings)
    assert watch.answers()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while watch.answers():
        assert time.monotonic() < deadline


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "redis+socket:///nowhere/redis.sock?virtual_host=0"])
def test_a_redis_that_is_not_there_is_told_like_a_silent_one(url: str, settings: Settings) -> None:
    assert not does_answer(settings.model_copy(update={"broker_url": url}))


def test_a_redis_that_answers_is_told_so_also_where_it_refuses(settings: Settings, redis_url: str) -> None:
    assert does_answer(settings.model_copy(update={"broker_url": redis_url}))
    with closing(redis_client(redis_url)) as client:
        client.acl_setuser("mute", enabled=True, passwords=["+secret"], commands=["+llen"])
        mute = f"redis://mute:secret@{redis_url.partition('@')[2]}"
        assert does_answer(settings.model_copy(update={"broker_url": mute}))
        client.acl_deluser("mute")
