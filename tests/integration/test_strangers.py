"""Strangers on Redis: whatever they write into a queue is refused and counted, and the worker goes on."""

import base64
import json
import pickle
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from farm import batches
from farm.broker import Broker
from farm.envelope import MAX_ENTRY_BYTES, pack_message, task_entry
from farm.redis_client import redis_client
from producer.questions.queries import find_batch
from schemas.errors import MessageError, NotFoundError
from schemas.messages import PackMessage
from tests.conftest import RedisServer
from tests.integration.consumers import QUEUE, Consumer, running_consumer
from tests.integration.ledger_farm import new_ledger, open_batch, states

PACK_ID = "0123456789abcdef0123456789abcdef"
Entry = dict[str, Any]


@pytest.fixture(scope="module")
def own_entry(redis_server: RedisServer) -> bytes:
    """What our own publishing leaves in Redis."""
    broker = Broker(redis_server.url, "own:")
    broker.publish(QUEUE, [PACK_ID])
    broker.close()
    with redis_client(redis_server.url) as client:
        entry: bytes = client.rpop(f"own:{QUEUE}")
        return entry


@pytest.fixture(scope="module")
def consumer(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consumer]:
    with running_consumer(tmp_path_factory.mktemp("consumer"), redis_server.url, prefix="strangers:") as consumer:
        yield consumer
        assert consumer.process.poll() is None, consumer.log


def body(*parts: object) -> str:
    return base64.b64encode(json.dumps(parts).encode()).decode()


MESSAGE = {"version": 1, "pack_id": PACK_ID}
TASK = {"task": "os.system", "args": ["touch /tmp/x"], "kwargs": {}, "options": {"queue": QUEUE}}


def header(name: str, value: object) -> Callable[[Entry], None]:
    return lambda entry: entry["headers"].__setitem__(name, value)


def part(name: str, value: object) -> Callable[[Entry], None]:
    return lambda entry: entry.__setitem__(name, value)


def without(name: str) -> Callable[[Entry], None]:
    return lambda entry: entry.__delitem__(name)


FORGED: dict[str, Callable[[Entry], None]] = {
    "unknown task": header("task", "celery.chain"),
    "no task": header("task", None),
    "a list for a task": header("task", ["nightshift.render_pack"]),
    "in a thousand years": header("eta", "3026-01-01T00:00:00+00:00"),
    "expired": header("expires", "2001-01-01T00:00:00+00:00"),
    "retries": header("retries", 10**9),
    "a time limit": header("timelimit", [1, 1]),
    "a group": header("group", "x"),
    "stamps": header("stamps", {"x": 1}),
    "compressed": header("compression", "application/x-gzip"),
    "a header of its own": header("reply_to_me", "x"),
    "no headers": without("headers"),
    "headers as text": part("headers", "task"),
    "a pickle": part("content-type", "application/x-python-serialize"),
    "yaml": part("content-type", "application/x-yaml"),
    "no body": without("body"),
    "a body as a number": part("body", 7),
    "a body that is no base64": part("body", "{}"),
    "a body that is a pickle": part("body", base64.b64encode(pickle.dumps(MESSAGE)).decode()),
    "a body of protocol 1": part(
        "body", base64.b64encode(json.dumps({"args": [], "kwargs": MESSAGE}).encode()).decode()
    ),
    "positional arguments": part("body", body(["x"], MESSAGE, {})),
    "callbacks": part("body", body([], MESSAGE, {"callbacks": [TASK]})),
    "errbacks": part("body", body([], MESSAGE, {"errbacks": [TASK]})),
    "a chain": part("body", body([], MESSAGE, {"chain": [TASK]})),
    "a chord": part("body", body([], MESSAGE, {"chord": TASK})),
    "a spec beside the id": part("body", body([], {**MESSAGE, "spec": {"prompt": "a cat"}}, {})),
    "another version": part("body", body([], {**MESSAGE, "version": 2}, {})),
    "a path for an id": part("body", body([], {**MESSAGE, "pack_id": "../../etc/passwd"}, {})),
    "an id with a newline": part("body", body([], {**MESSAGE, "pack_id": PACK_ID + "\n"}, {})),
    "an id with SQL": part("body", body([], {**MESSAGE, "pack_id": "' OR 1=1 --"}, {})),
    "no id": part("body", body([], {"version": 1}, {})),
    "deep in the body": part("body", base64.b64encode(b"[" * 40_000).decode()),
}

FOREIGN = {
    "nothing": b"",
    "text": b"hello",
    "no UTF-8": b"\xff\xfe\x00",
    "a pickle of a call": b"cos\nsystem\n(S'touch /tmp/x'\ntR.",
    "null": b"null",
    "a number": b"1",
    "a number of many digits": b"9" * 6_000,
    "a list": b"[]",
    "an empty object": b"{}",
    "deep": b"[" * 60_000,
    "deep objects": b'{"a":' * 10_000,
    "kombu's types": b'{"__type__": "uuid", "__value__": 7}',
    "oversized": b"x" * (MAX_ENTRY_BYTES + 1),
    "an oversized message of ours": b" " * MAX_ENTRY_BYTES + b"{}",
}


@pytest.fixture
def forged(request: pytest.FixtureRequest, own_entry: bytes) -> bytes:
    entry = json.loads(own_entry)
    FORGED[request.param](entry)
    return json.dumps(entry).encode()


def refused_then_works(consumer: Consumer, entry: bytes) -> None:
    """The next message is taken, by the same process; so the one before has been looked at by then."""
    before = consumer.num_refused
    consumer.redis.lpush(consumer.key, entry)
    assert consumer.takes_a_hint()
    consumer.wait_for_refusals(before + 1)


@pytest.mark.parametrize("entry", FOREIGN.values(), ids=FOREIGN)
def test_what_is_no_message_is_refused_and_counted(consumer: Consumer, entry: bytes) -> None:
    refused_then_works(consumer, entry)


@pytest.mark.parametrize("forged", FORGED, indirect=True)
def test_a_forged_message_is_refused_and_counted(consumer: Consumer, forged: bytes) -> None:
    refused_then_works(consumer, forged)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_message_is_refused_and_counted(consumer: Consumer, own_entry: bytes, share: float) -> None:
    refused_then_works(consumer, own_entry[: int(len(own_entry) * share)])


def test_our_own_message_is_not_refused(consumer: Consumer, own_entry: bytes) -> None:
    before = consumer.num_refused
    consumer.redis.lpush(consumer.key, own_entry)
    assert consumer.next_line() == PACK_ID
    consumer.redis.lpush(consumer.key, b"spam")
    consumer.wait_for_refusals(before + 1)


def test_what_a_stranger_says_beside_a_message_never_reaches_celery(consumer: Consumer, own_entry: bytes) -> None:
    entry = json.loads(own_entry)
    before = set(consumer.redis.keys("*"))
    entry["properties"] = {"reply_to": "elsewhere", "delivery_tag": {"a": []}, "delivery_info": 7, "priority": "high"}
    consumer.redis.lpush(consumer.key, json.dumps(entry))
    assert consumer.next_line() == PACK_ID
    assert consumer.takes_a_hint()
    assert set(consumer.redis.keys("*")) <= before


def test_a_key_that_is_no_list_is_waited_out(consumer: Consumer) -> None:
    before = consumer.num_refused
    consumer.redis.set(consumer.key, "mine")
    while consumer.num_refused == before:
        assert consumer.process.poll() is None, consumer.log
    consumer.redis.delete(consumer.key)
    assert consumer.takes_a_hint()
    assert "holds no list" in consumer.log


def test_a_flood_is_counted_to_the_last_and_logged_in_a_few_lines(consumer: Consumer) -> None:
    before, lines = consumer.num_refused, consumer.log.count("\n")
    consumer.redis.lpush(consumer.key, *[b"spam"] * 2_000)
    assert consumer.takes_a_hint()
    consumer.wait_for_refusals(before + 2_000)
    assert consumer.log.count("\n") - lines < 1_000


def test_the_log_quotes_a_stranger_in_short_and_in_printable_characters(consumer: Consumer) -> None:
    refused_then_works(consumer, b'"\\u001b[31m\\u202e\\nnightshift: all is well' + b"x" * 1_000 + b'"')
    last = consumer.log.splitlines()[-1]
    assert "messages refused" in last
    assert last.isprintable()
    assert len(last) < 250


def test_a_consumer_that_refused_ends_gently(redis_url: str, tmp_path: Path) -> None:
    with running_consumer(tmp_path, redis_url) as consumer:
        consumer.redis.lpush(consumer.key, b"spam")
        assert consumer.takes_a_hint()
        assert consumer.stop() == 0


def test_what_celery_is_given_is_read_as_what_it_was_made_of() -> None:
    message = PackMessage(uuid.uuid4().hex)
    assert pack_message(task_entry(message, QUEUE).encode()) == message


@pytest.mark.parametrize("forged", FORGED, indirect=True)
def test_the_reason_is_one_short_sentence(forged: bytes) -> None:
    with pytest.raises(MessageError) as error:
        pack_message(forged)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 500


def test_names_are_values_and_never_sql(database_url: str) -> None:
    with closing(new_ledger(database_url)) as database:
        other = open_batch(database)
        for name in ("'; DROP TABLE jobs; --", "' OR '1'='1", 'x" OR 1=1 --', "%s", "%(x)s", ":name", "{0}", "?", "\\"):
            batch_id = batches.create_batch(database, name, name, 5)
            assert find_batch(database, name).id == batch_id
            with pytest.raises(NotFoundError):
                find_batch(database, f"{name} ")
        assert sum(states(database, other).values()) == 4
