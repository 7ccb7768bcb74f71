"""Celery's consumer as a worker runs it, on a real Redis, without a device. The tests share one; the last ends it."""

import time
import uuid
from collections.abc import Iterator

import pytest
from celery.bin.celery import celery as celery_command
from click.testing import CliRunner

from farm import remote_control
from schemas.errors import SettingsError
from tests.integration.consumers import QUEUE, WAIT_SECONDS, Consumer, running_consumer
from tests.servers import RedisServer, temporary_folder

pytestmark = pytest.mark.xdist_group("consumer")

PREFIX = "soon:"
NAME = "consumer@test"
ANSWER_SECONDS = 10.0


@pytest.fixture(scope="module")
def consumer(redis_server: RedisServer) -> Iterator[Consumer]:
    """Its packs take 50 ms each, and it may be controlled from afar."""
    with (
        temporary_folder() as folder,
        running_consumer(folder, redis_server.url, prefix=PREFIX, pack_seconds=0.05, remote_control=True) as consumer,
    ):
        yield consumer


def test_a_pack_is_taken_as_soon_as_another_has_ended(consumer: Consumer) -> None:
    """And not when Celery looks again, once a second at the most: that would be 20 s for 40 packs in two slots."""
    pack_ids = [uuid.uuid4().hex for _ in range(40)]
    started = time.monotonic()
    consumer.broker.publish(QUEUE, pack_ids)
    assert {consumer.next_line() for _ in pack_ids} == set(pack_ids)
    assert time.monotonic() - started < 10


def test_an_operator_who_turned_remote_control_on_can_ask_workers(consumer: Consumer) -> None:
    inspect = consumer.broker.app.control.inspect([NAME], timeout=ANSWER_SECONDS)
    assert inspect.ping() == {NAME: {"ok": "pong"}}
    assert [queue["name"] for queue in inspect.active_queues()[NAME]] == [QUEUE]
    assert inspect.active() == {NAME: []}
    assert inspect.stats()[NAME]["pool"]["max-concurrency"] == 2
    assert consumer.takes_a_hint()


def test_remote_control_leaves_nothing_in_redis_but_answers_that_end_by_themselves(consumer: Consumer) -> None:
    """Of one who asks and is gone; and kombu's tables of bindings are not written."""
    app = consumer.broker.app
    with app.connection_for_write() as connection:
        app.control.mailbox(connection)._publish("ping", {}, [NAME], reply_ticket="late")
    deadline = time.monotonic() + ANSWER_SECONDS
    while not (keys := consumer.redis.keys(f"{PREFIX}*")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (answer,) = keys
    assert answer.endswith(b".reply.celery.pidbox")
    assert consumer.redis.pttl(answer) > 0


def test_celerys_own_command_asks_them_by_our_settings(
    consumer: Consumer, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_BROKER_URL", redis_server.url)
    monkeypatch.setenv("NIGHTSHIFT_BROKER_PREFIX", PREFIX)
    with pytest.raises(SettingsError, match="remote_control is off"):
        _ = remote_control.app
    monkeypatch.setenv("NIGHTSHIFT_REMOTE_CONTROL", "true")
    words = ["--app", "farm.remote_control", "inspect", "ping", "--destination", NAME, "--json"]
    answer = CliRunner().invoke(celery_command, words)
    assert (answer.exit_code, answer.output.strip()) == (0, '{"consumer@test": {"ok": "pong"}}')
    remote_control.app.close()


def test_whoever_may_write_to_redis_can_then_shut_a_worker_down(consumer: Consumer) -> None:
    """As docs/security.md says. The last of these tests."""
    consumer.broker.app.control.shutdown(destination=[NAME])
    assert consumer.process.wait(WAIT_SECONDS) == 0
    consumer.stop()
