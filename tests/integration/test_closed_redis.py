"""A Redis that is closed to strangers, as docs/security.md has it: passwords, users of few rights, TLS."""

import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Thread
from urllib.parse import quote

import pytest
from redis import Redis
from redis.exceptions import NoPermissionError, RedisError

from farm.broker import Broker
from farm.redis_client import redis_client
from producer.upkeep.doctor import examine
from producer.upkeep.versions import redis_flaw
from schemas.errors import BrokerUnavailableError, SettingsError
from schemas.settings import Settings
from tests.integration.consumers import QUEUE, running_consumer
from tests.integration.tls_proxy import Certificates, tls_proxy
from tests.servers import RedisServer, temporary_folder

SECURITY = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
PACK_ID = "0123456789abcdef0123456789abcdef"
#: as the document has them, each with a password
USERS = "".join(re.findall(r"^user .*\n", SECURITY, re.M))
(BOUND,) = re.findall(r"^proto-max-bulk-len .*\n", SECURITY, re.M)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with temporary_folder() as folder:
        server = RedisServer(folder, BOUND + USERS.replace("user default off\n", ""))
        try:
            server.start()
            yield server
        finally:
            server.stop()


def url_of(server: RedisServer, user: str, password: str | None = None) -> str:
    if password is None:
        (password,) = re.findall(rf"^user {user} on >(\S+)", USERS, re.M)
    return f"redis://{user}:{password}@127.0.0.1:{server.port}/0"


def test_the_document_closes_the_user_without_a_name() -> None:
    assert "user default off\n" in USERS


def test_a_producer_publishes_counts_and_asks_how_redis_is(server: RedisServer) -> None:
    with closing(Broker(url_of(server, "producer"))) as broker:
        broker.publish(QUEUE, [PACK_ID])
        assert broker.queue_length(QUEUE) == 1
        assert broker.info()["redis_version"]
    server.flush()


@pytest.mark.parametrize("command", ["RPOP", "LPOP", "BRPOP", "LRANGE", "LINDEX", "DEL", "GETDEL", "DUMP", "LMOVE"])
def test_a_producer_cannot_consume_read_or_delete(server: RedisServer, command: str) -> None:
    arguments = {"BRPOP": [1], "LRANGE": [0, -1], "LINDEX": [0], "LMOVE": ["nightshift.x", "LEFT", "LEFT"]}
    with closing(redis_client(url_of(server, "producer"))) as client, pytest.raises(NoPermissionError):
        client.execute_command(command, QUEUE, *arguments.get(command, []))


@pytest.mark.parametrize("user", ["producer", "worker", "controlled-worker", "operator"])
@pytest.mark.parametrize(
    "command",
    ["CONFIG GET *", "FLUSHALL", "KEYS *", "EVAL x 0", "SHUTDOWN", "MONITOR", "ACL LIST", "CLIENT LIST", "PUBLISH a b",
     "SLAVEOF NO ONE", "DEBUG SLEEP 0", "LPUSH elsewhere 1", "BRPOP elsewhere 1"],
)  # fmt: skip
def test_nobody_of_the_farm_may_do_more(server: RedisServer, user: str, command: str) -> None:
    with closing(redis_client(url_of(server, user))) as client, pytest.raises(NoPermissionError):
        client.execute_command(*command.split())


def test_a_worker_consumes_and_cannot_publish(server: RedisServer, tmp_path: Path) -> None:
    with running_consumer(tmp_path, url_of(server, "worker"), server.url) as consumer:
        assert consumer.takes_a_hint()
        consumer.redis.lpush(consumer.key, b"spam")
        assert consumer.takes_a_hint()
        consumer.wait_for_refusals(1)
        assert consumer.stop() == 0
        assert "NOPERM" not in consumer.log
    with (
        closing(Broker(url_of(server, "worker"))) as broker,
        pytest.raises(BrokerUnavailableError, match="permissions"),
    ):
        broker.publish(QUEUE, [PACK_ID])


def test_an_operator_asks_workers_and_stops_them_where_remote_control_is_on(
    server: RedisServer, tmp_path: Path
) -> None:
    asked = {"consumer@test": {"ok": "pong"}}
    urls = (url_of(server, "controlled-worker"), server.url)
    with running_consumer(tmp_path, *urls, remote_control=True) as consumer:
        assert consumer.takes_a_hint()
        with closing(Broker(url_of(server, "operator"), remote_control=True)) as broker:
            assert broker.app.control.inspect([*asked], timeout=10.0).ping() == asked
            assert consumer.takes_a_hint()
            broker.app.control.shutdown(destination=[*asked])
            assert consumer.process.wait(30) == 0
        consumer.stop()
        assert "NOPERM" not in consumer.log
        assert "permission" not in consumer.log


def test_who_may_not_publish_cannot_ask_workers(server: RedisServer) -> None:
    for user in ("producer", "worker", "controlled-worker"):
        with closing(redis_client(url_of(server, user))) as client, pytest.raises(NoPermissionError):
            client.publish("/0.celery.pidbox", "{}")


@pytest.mark.parametrize("command", [f"LPUSH {QUEUE} 1", f"BRPOP {QUEUE} 1", f"LLEN {QUEUE}", "PUBLISH elsewhere x"])
def test_an_operator_can_do_nothing_else(server: RedisServer, command: str) -> None:
    with closing(redis_client(url_of(server, "operator"))) as client, pytest.raises(NoPermissionError):
        client.execute_command(*command.split())


def test_a_worker_may_see_that_packs_wait(server: RedisServer) -> None:
    """Or it could never find itself deaf."""
    with closing(Broker(url_of(server, "worker"))) as broker:
        assert broker.queue_length(QUEUE) == 0


def test_nobody_can_make_a_worker_hold_a_message_of_megabytes(server: RedisServer) -> None:
    with closing(redis_client(url_of(server, "producer"))) as client, pytest.raises(RedisError):
        client.lpush(QUEUE, b"x" * (2 << 20))


@pytest.mark.parametrize("user", ["", "default", "producer"])
def test_a_wrong_password_is_said_in_one_sentence_without_it(server: RedisServer, user: str) -> None:
    with closing(Broker(url_of(server, user, "wrong-secret"))) as broker:
        for ask in (broker.info, lambda: broker.publish(QUEUE, [PACK_ID])):
            with pytest.raises(BrokerUnavailableError, match="does not answer") as error:
                ask()
            assert "wrong-secret" not in str(error.value)
            assert str(error.value).isprintable()


@pytest.mark.parametrize("password", ["a/b", "a?b", "a#b", "a[b", "12/b"])
def test_a_password_with_signs_of_urls_is_said_to_want_quoting_and_not_repeated(password: str) -> None:
    with pytest.raises(SettingsError, match="%2F") as error:
        Broker(f"redis://:{password}@127.0.0.1:6379/0")
    assert "b@" not in str(error.value)
    assert Broker(f"redis://:{quote(password, safe='')}@127.0.0.1:6379/0").safe_url == "redis://:***@127.0.0.1:6379/0"


def test_the_doctor_judges_a_redis_that_others_can_reach_by_its_version(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    with closing(redis_client(redis_server.url)) as client:
        version = client.info()["redis_version"]
    findings = {finding.subject: finding for finding in examine(Settings(home=tmp_path, broker_url=redis_server.url))}
    assert findings["redis"].ok
    assert findings["redis version"].ok == (redis_flaw(version) is None)


def test_the_doctor_warns_of_a_redis_that_throws_queues_away(redis_server: RedisServer, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, broker_url=redis_server.url)
    with closing(redis_client(redis_server.url)) as client:
        usual = client.config_get("maxmemory-policy")["maxmemory-policy"]
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            findings = {finding.subject: finding for finding in examine(settings)}
        finally:
            client.config_set("maxmemory-policy", usual)
    assert not findings["redis"].ok
    assert "set it to noeviction" in findings["redis"].sentence


# TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    if shutil.which("openssl") is None:
        pytest.skip("making certificates needs the program openssl")
    return Certificates(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def tls_url(redis_server: RedisServer, certificates: Certificates) -> Iterator[str]:
    """Without its query."""
    with tls_proxy(certificates, redis_server.port) as port:
        yield redis_server.url.replace("redis:", "rediss:").replace(f":{redis_server.port}/", f":{port}/")


def test_both_clients_speak_tls_and_check_the_server(tls_url: str, certificates: Certificates, tmp_path: Path) -> None:
    url = f"{tls_url}?ssl_ca_certs={quote(str(certificates.ca))}"
    with closing(Broker(url, "tls:")) as broker:
        broker.publish(QUEUE, [PACK_ID])
        assert broker.queue_length(QUEUE) == 1
    with running_consumer(tmp_path, url, prefix="tls:") as consumer:
        assert consumer.next_line() == PACK_ID
        assert consumer.takes_a_hint()
        assert consumer.stop() == 0


@pytest.mark.parametrize("query", ["", "?ssl_ca_certs={other}", "?ssl_cert_reqs=required", "?ssl_check_hostname=true"])
def test_a_server_of_an_unknown_authority_is_refused_by_both_clients(
    tls_url: str, query: str, tmp_path: Path, certificates: Certificates
) -> None:
    other = Certificates(tmp_path).ca
    with closing(Broker(f"{tls_url}{query.format(other=quote(str(other)))}")) as broker:
        for ask in (broker.info, lambda: broker.publish(QUEUE, [PACK_ID])):
            with pytest.raises(BrokerUnavailableError, match="CERTIFICATE_VERIFY_FAILED") as error:
                ask()
            assert str(error.value).isprintable()


def test_a_server_of_another_name_is_refused(tls_url: str, certificates: Certificates) -> None:
    url = f"{tls_url.replace('@127.0.0.1:', '@localhost:')}?ssl_ca_certs={quote(str(certificates.ca))}"
    with closing(Broker(url)) as broker:
        for ask in (broker.info, lambda: broker.publish(QUEUE, [PACK_ID])):
            with pytest.raises(BrokerUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
                ask()


def test_a_password_is_never_sent_to_a_server_that_cannot_prove_itself(certificates: Certificates) -> None:
    """Not even by a client that would go on without TLS."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)

        def listen() -> None:
            connection, _ = listener.accept()
            listener.close()  # a second try is refused, and need not be waited for
            with connection:
                heard.append(connection.recv(4096))

        thread = Thread(target=listen)
        thread.start()
        url = f"rediss://:planted-secret@127.0.0.1:{listener.getsockname()[1]}/0"
        with closing(Broker(url)) as broker, pytest.raises(BrokerUnavailableError):
            broker.publish(QUEUE, [PACK_ID])
        thread.join()
    assert heard
    assert b"planted-secret" not in b"".join(heard)


def test_the_clients_of_this_test_would_be_refused_nothing_by_an_open_redis(server: RedisServer) -> None:
    """So that the refusals above are the users', and not a server's that refuses everything."""
    with closing(Redis.from_url(server.url)) as client:
        try:
            assert client.execute_command("LPUSH", "elsewhere", 1) == 1
            assert client.execute_command("RPOP", "elsewhere") == b"1"
        except RedisError as error:
            pytest.fail(str(error))
