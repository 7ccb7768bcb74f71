"""Webhooks from real ledgers to a real HTTP server that answers well, late, badly, elsewhere, or half."""

import hashlib
import hmac
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from farm import batches, ledger, removal
from farm.broker import Broker
from farm.database import Database
from farm.retries import Failure
from farm.webhook_deliveries import claim_delivery, note_events, note_refused, note_sent
from producer.dispatching.dispatcher import Dispatcher
from producer.dispatching.webhooks import Webhooks, webhook_target
from schemas.errors import SettingsError
from schemas.settings import Settings
from schemas.states import JobState
from schemas.tables import Job, Pack, Result
from schemas.web_tables import WebhookDelivery
from schemas.webhook import FAILURE_SHARE, FINISHED, MAX_ATTEMPTS, STARTED, WebhookTarget, signature, wait_seconds
from tests.integration.ledger_farm import (
    ENVIRONMENT,
    TestClock,
    claimed_pack,
    images_of,
    new_ledger,
    new_worker,
    open_batch,
    staged,
    states,
)

SECRET = "a-secret-of-the-webhook"


class Receiver:
    """Answers as ``answers`` says, one after another, then 200. ``events``: what came, with its headers."""

    def __init__(self) -> None:
        self.answers: list[Callable[[BaseHTTPRequestHandler], None]] = []
        self.events: list[tuple[dict[str, str], bytes]] = []
        self.paths: list[str] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.paths.append(self.path)
                receiver.events.append((dict(self.headers.items()), body))
                answer = receiver.answers.pop(0) if receiver.answers else status(200)
                answer(self)

            def do_GET(self) -> None:  # a client that followed a redirect would come so
                self.do_POST()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        # 10 ms: how often it looks whether to end; of itself twice a second
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?farm=1"

    @property
    def told(self) -> list[str]:
        return [json.loads(body)["event"] for _, body in self.events]

    @property
    def ids(self) -> list[str]:
        return [headers["Nightshift-Event-Id"] for headers, _ in self.events]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def status(code: int, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def die_in_the_middle(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 20")
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)


def drip(handler: BaseHTTPRequestHandler) -> None:
    """A byte now and then, for ever: no time-out of a single read ever comes."""
    try:
        while True:
            handler.wfile.write(b"H")
            handler.wfile.flush()
            time.sleep(0.05)
    except OSError:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with closing(Receiver()) as receiver:
        yield receiver


@pytest.fixture
def settings(tmp_path: Path, receiver: Receiver) -> Settings:
    hosts = f"127.0.0.1:{receiver.port}"
    return Settings(home=tmp_path, webhook_url=receiver.url, webhook_secret=SECRET, webhook_hosts=hosts,
                    webhook_failure_share=0.5)  # fmt: skip


@pytest.fixture
def webhooks(database: Database, settings: Settings) -> Webhooks:
    return Webhooks(database, settings)


def finish(database: Database, batch_id: int, worker_id: str, size: int = 1) -> None:
    pack = claimed_pack(database, batch_id, worker_id, size)
    ledger.finish_jobs(database, pack, ENVIRONMENT, images_of(pack))


def fail(database: Database, batch_id: int, worker_id: str) -> None:
    pack = claimed_pack(database, batch_id, worker_id, 1)
    ledger.fail_jobs(database, pack, [job.id for job in pack.jobs], Failure("x", "x", retryable=False), 1)


def deliveries(database: Database, batch_id: int | None = None) -> dict[str, tuple[str, int]]:
    """event → state and attempts, of the batch; else of the youngest."""
    with database.begin(read_only=True) as tx:
        found = tx.execute(select(WebhookDelivery).order_by(WebhookDelivery.batch_id)).all()
    return {row.event: (row.state, row.attempts) for row in found if batch_id in (None, row.batch_id)}


def started(database: Database, webhooks: Webhooks) -> int:
    """A batch of four of which one is done, noted."""
    batch_id = open_batch(database, 4)
    finish(database, batch_id, new_worker(database))
    webhooks.note()
    return batch_id


def test_each_event_is_told_once_when_it_happens(
    database: Database, webhooks: Webhooks, receiver: Receiver, settings: Settings
) -> None:
    worker_id, batch_id = new_worker(database), open_batch(database, 4)

    def told_after(happens: Callable[..., None]) -> list[str]:
        before = len(receiver.events)
        happens(database, batch_id, worker_id)
        for each in (webhooks, Webhooks(database, settings)):  # two dispatchers
            each.note()
            each.send_due()
        return receiver.told[before:]

    webhooks.note()
    assert webhooks.send_due() == 0
    assert told_after(finish) == [STARTED]
    assert told_after(fail) == []
    assert told_after(fail) == [FAILURE_SHARE]
    assert told_after(finish) == [FINISHED]
    ledger.retry_failed(database, batch_id)
    assert told_after(fail) == []
    assert told_after(finish) == []
    assert len(set(receiver.ids)) == 3
    assert json.loads(receiver.events[1][1])["failure_share"] == 0.5
    finished = json.loads(receiver.events[2][1])
    assert finished["batch"] == {
        "id": batch_id, "name": "cats", "pair": "tiny", "state": "open", "num_jobs": 4, "num_pending": 0,
        "num_queued": 0, "num_running": 0, "num_done": 2, "num_failed": 2, "num_canceled": 0,
    }  # fmt: skip
    assert finished["id"] == receiver.ids[2]


def test_it_is_signed_over_time_and_body(database: Database, webhooks: Webhooks, receiver: Receiver) -> None:
    started(database, webhooks)
    webhooks.send_due()
    ((headers, body),) = receiver.events
    timestamp, given = (part.partition("=")[2] for part in headers["Nightshift-Signature"].split(","))
    assert given == hmac.new(SECRET.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    assert abs(time.time() - int(timestamp)) < 60
    assert headers["Content-Type"] == "application/json"
    assert headers["Host"] == f"127.0.0.1:{receiver.port}"
    assert receiver.paths == ["/hook?farm=1"]
    assert signature(SECRET, int(timestamp), body + b" ") != headers["Nightshift-Signature"]


@pytest.mark.parametrize("answer", [status(500), status(503), status(429), die_in_the_middle])
def test_a_bad_moment_is_waited_out_and_the_same_event_sent_again(
    database: Database, webhooks: Webhooks, receiver: Receiver, clock: TestClock, answer: Any
) -> None:
    receiver.answers = [answer, answer]
    started(database, webhooks)
    assert webhooks.send_due() == 1
    clock.advance(9.9)
    assert webhooks.send_due() == 0
    clock.advance(0.1)
    assert webhooks.send_due() == 1
    clock.advance(40)
    assert webhooks.send_due() == 1
    assert webhooks.send_due() == 0
    assert deliveries(database)[STARTED] == ("sent", 3)
    assert len(receiver.events) == 3
    assert len(set(receiver.ids)) == 1
    assert len({body for _, body in receiver.events}) == 1


def test_a_receiver_that_drips_is_cut_off(database: Database, settings: Settings, receiver: Receiver) -> None:
    receiver.answers = [drip]
    webhooks = Webhooks(database, settings, request_seconds=0.3)
    started(database, webhooks)
    assert webhooks.send_due() == 1
    assert deliveries(database)[STARTED] == ("due", 1)


@pytest.mark.parametrize("code", [301, 302, 307, 308, 400, 401, 404, 410])
def test_a_redirect_is_not_followed_and_a_refusal_is_final(
    database: Database, webhooks: Webhooks, receiver: Receiver, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answers = [status(code, Location=f"http://127.0.0.1:{receiver.port}/elsewhere")]
    started(database, webhooks)
    with caplog.at_level(logging.WARNING):
        webhooks.send_due()
    assert receiver.paths == ["/hook?farm=1"]
    assert deliveries(database)[STARTED] == ("failed", 1)
    assert f"answered {code}; given up" in caplog.text
    assert SECRET not in caplog.text


def test_it_is_given_up_after_so_many_attempts(
    database: Database, webhooks: Webhooks, receiver: Receiver, clock: TestClock
) -> None:
    receiver.answers = [status(500)] * 20
    started(database, webhooks)
    for _ in range(20):
        webhooks.send_due()
        clock.advance(3600)
    assert deliveries(database)[STARTED] == ("failed", MAX_ATTEMPTS)
    assert len(receiver.events) == MAX_ATTEMPTS
    assert [wait_seconds(n) for n in (1, 2, 3, 9)] == [10, 40, 160, 3600]


def test_nobody_listening_is_a_bad_moment_too(
    database: Database, webhooks: Webhooks, receiver: Receiver, settings: Settings
) -> None:
    receiver.close()
    started(database, webhooks)
    webhooks.send_due()
    assert deliveries(database)[STARTED] == ("due", 1)


# --- who sends ------------------------------------------------------------------------------------------------------


def test_a_claimed_event_is_nobody_elses_until_its_sender_counts_as_dead(
    database: Database, webhooks: Webhooks, clock: TestClock
) -> None:
    started(database, webhooks)
    first = claim_delivery(database, 60)
    assert first is not None
    assert claim_delivery(database, 60) is None
    clock.advance(60)
    second = claim_delivery(database, 60)
    assert second is not None
    assert (second.event_id, second.body, second.attempts) == (first.event_id, first.body, 2)
    note_sent(database, first)  # it lived after all, but is late: the event is in other hands
    assert deliveries(database)[STARTED] == ("sending", 2)
    assert note_refused(database, second, worth_a_retry=True)
    note_sent(database, second)
    assert deliveries(database)[STARTED] == ("due", 2)


def test_many_senders_at_once_send_each_event_once(database: Database, settings: Settings, receiver: Receiver) -> None:
    for _ in range(5):
        started(database, Webhooks(database, settings))
    senders = [Webhooks(database, settings) for _ in range(4)]
    threads = [threading.Thread(target=sender.send_due) for sender in senders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert receiver.told == [STARTED] * 5
    assert len(set(receiver.ids)) == 5


def test_a_batch_that_was_over_in_a_moment_is_told_of_and_old_ones_are_not(
    database: Database, webhooks: Webhooks, receiver: Receiver, clock: TestClock
) -> None:
    old = open_batch(database, 1)
    finish(database, old, new_worker(database))
    clock.advance(3601)
    quick = open_batch(database, 1)
    finish(database, quick, new_worker(database))
    webhooks.note()
    webhooks.send_due()
    assert [(json.loads(body)["event"], json.loads(body)["batch"]["id"]) for _, body in receiver.events] == [
        (STARTED, quick), (FINISHED, quick)
    ]  # fmt: skip
    assert deliveries(database)[FAILURE_SHARE] == ("void", 0)


def test_nothing_is_told_of_a_batch_that_was_never_opened(
    database: Database, webhooks: Webhooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("farm.discarding.PIECE", 1)
    batch_id = batches.create_batch(database, "cats", "tiny", 5)
    ledger.stage_jobs(database, batch_id, [staged(1), staged(2)])
    batches.discard_batch(database, batch_id, within_seconds=0)
    webhooks.note()
    assert (states(database, batch_id), deliveries(database)) == ({JobState.PENDING: 1}, {})


def test_a_canceled_batch_that_never_began_is_finished_and_was_not_started(
    database: Database, webhooks: Webhooks, receiver: Receiver
) -> None:
    batch_id = open_batch(database)
    webhooks.note()
    batches.cancel_batch(database, batch_id)
    webhooks.note()
    assert webhooks.send_due() == 0
    ledger.sweep_canceled(database, batch_id)
    webhooks.note()
    webhooks.send_due()
    assert receiver.told == [FINISHED]
    removal.remove_jobs(database, batch_id, 100)
    assert removal.remove_batch(database, batch_id)
    assert deliveries(database) == {}


def test_a_removed_batch_whose_packs_stay_for_others_is_not_told_of_again(
    database: Database, webhooks: Webhooks, receiver: Receiver
) -> None:
    first, second = open_batch(database, 1), open_batch(database, 1)
    finish(database, first, new_worker(database))
    with database.begin(read_only=True) as tx:
        image_id = tx.execute(select(Result.image_id)).scalar_one()
        job_id = tx.execute(select(Job.id).where(Job.batch_id == second)).scalar_one()
    ledger.link_jobs(database, second, {job_id: image_id})
    webhooks.note()
    num_sent = webhooks.send_due()
    removal.remove_jobs(database, first, 100)
    assert not removal.remove_batch(database, first)
    webhooks.note()
    assert (num_sent, webhooks.send_due()) == (4, 0)


def test_a_slow_receiver_holds_no_tick_up(
    sqlite_url: str, settings: Settings, receiver: Receiver, redis_url: str
) -> None:
    with closing(new_ledger(sqlite_url)) as database, closing(Broker(redis_url)) as broker:
        release = threading.Event()

        def wait(handler: BaseHTTPRequestHandler) -> None:
            release.wait(60)
            status(200)(handler)

        receiver.answers = [wait]
        worker_id, batch_id = new_worker(database), open_batch(database, 2)
        finish(database, batch_id, worker_id)
        quick = settings.model_copy(update={"tick_seconds": 0.05})
        stop = threading.Event()
        thread = threading.Thread(target=Dispatcher(database, broker, quick).run, args=(stop,))
        thread.start()
        try:
            until(lambda: bool(receiver.events))
            late = open_batch(database, 1)  # is released while the receiver has not answered yet
            until(lambda: any(True for _ in packs_of(database, late)))
            assert deliveries(database, batch_id)[STARTED][0] != "sent"
        finally:
            release.set()
            stop.set()
            thread.join(60)


def packs_of(database: Database, batch_id: int) -> list[Any]:
    with database.begin(read_only=True) as tx:
        return list(tx.execute(select(Pack.id).where(Pack.batch_id == batch_id)))


def until(happens: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_is_due_when_the_dispatcher_ends_is_sent(sqlite_url: str, settings: Settings, receiver: Receiver) -> None:
    with closing(new_ledger(sqlite_url)) as database:
        with Webhooks(database, settings):
            batch_id = open_batch(database, 1)
            finish(database, batch_id, new_worker(database))
        assert receiver.told == [STARTED, FINISHED]


def test_without_a_url_nothing_is_noted(database: Database, tmp_path: Path) -> None:
    open_batch(database)
    with Webhooks(database, Settings(home=tmp_path)) as webhooks:
        webhooks.note()
        assert webhooks.send_due() == 0
    assert deliveries(database) == {}
    assert note_events(database, 0.5) == 0


# --- where it may go ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "hosts", "reason"),
    [
        ("https://hooks.example.org/x", "", "does not allow; allowed are: none"),
        ("https://hooks.example.org/x", "example.org", "hooks.example.org:443, which webhook_hosts does not allow"),
        ("https://hooks.example.org/x", "*.example.org", "does not allow"),
        ("https://hooks.example.org:8443/x", "hooks.example.org:443", "does not allow"),
        ("http://hooks.example.org/x", "hooks.example.org", "webhook_url is http"),
        ("http://10.0.0.5/x", "10.0.0.5", "webhook_url is http"),
        ("ftp://hooks.example.org/x", "hooks.example.org", "no URL of the web"),
        ("https://hooks.example.org/a b", "hooks.example.org", "no URL of the web"),
        ("https://hooks.example.org/\r\nX: y", "hooks.example.org", "no URL of the web"),
        ("https://me:pw@hooks.example.org/x", "hooks.example.org", "carries a user or a password"),
        ("https://hooks.example.org:port/x", "hooks.example.org", "no URL;"),
    ],
)
def test_a_target_that_may_not_be_is_refused_in_a_sentence(url: str, hosts: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        WebhookTarget.parse(url, SECRET, hosts)


def test_a_secret_is_needed_and_is_not_told() -> None:
    with pytest.raises(SettingsError, match="16 characters or more") as refused:
        webhook_target(Settings(webhook_url="https://h.example/x", webhook_hosts="h.example", webhook_secret="short"))
    assert "short" not in str(refused.value)
    assert SECRET not in repr(Settings(webhook_secret=SECRET))


@pytest.mark.parametrize(
    ("hosts", "address", "may"),
    [
        ("h.example", "93.184.216.34", True),
        ("h.example", "10.0.0.5", False),
        ("h.example", "127.0.0.1", False),
        ("h.example", "169.254.169.254", False),
        ("h.example", "::1", False),
        ("h.example", "::ffff:10.0.0.5", False),
        ("h.example", "fe80::1%eth0", False),
        ("h.example", "224.0.0.1", False),
        ("h.example", "0.0.0.0", False),
        ("h.example, 10.0.0.5", "10.0.0.5", True),
        ("h.example, 10.0.0.5", "10.0.0.6", False),
        ("h.example, 10.0.0.5:443", "::ffff:10.0.0.5", True),
        ("h.example, [fd00::1]:443", "fd00::1", True),
    ],
)
def test_a_name_may_lead_to_public_addresses_or_to_those_that_are_named(hosts: str, address: str, may: bool) -> None:
    assert WebhookTarget.parse("https://h.example/x", SECRET, hosts).may_connect(address) is may


def test_a_name_that_leads_home_is_given_up(
    database: Database, tmp_path: Path, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    name = socket.gethostname()
    url, hosts = f"https://localhost.localdomain:{receiver.port}/", f"localhost.localdomain:{receiver.port}, {name}"
    webhooks = Webhooks(database, Settings(home=tmp_path, webhook_url=url, webhook_hosts=hosts, webhook_secret=SECRET))
    started(database, webhooks)
    webhooks.send_due()
    assert receiver.events == []
    assert deliveries(database)[STARTED][0] in ("failed", "due")  # "due" where that name leads nowhere at all


def test_this_machine_itself_may_be_reached_without_tls() -> None:
    assert WebhookTarget.parse("http://localhost:8/x", SECRET, "localhost:8").may_connect("127.0.0.1")
    assert WebhookTarget.parse("http://[::1]:8/x", SECRET, "[::1]:8").host_header == "[::1]:8"
    assert not WebhookTarget.parse("http://localhost:8/x", SECRET, "localhost:8").may_connect("93.184.216.34")
