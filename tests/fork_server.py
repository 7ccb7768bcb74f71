"""Forks Nightshift's processes from one that has imported torch already: a start takes one second instead of ten.

``python -m tests.fork_server SOCKET``. One line of JSON on a connection asks for a process (``Request``), the
answer is its process id, and a second line its end: an exit code, or the negative number of a signal. Who closes the
connection kills the process. Nothing but the imports is shared: no thread runs here, and no model is loaded.
"""

import ctypes
import gc
import importlib
import json
import os
import pkgutil
import random
import resource
import selectors
import signal
import socket
import sys
import threading
import traceback
from dataclasses import asdict, dataclass
from typing import Any, Self

from schemas.schedulers import SCHEDULERS

_MODULES = (
    *(
        "alembic.command",
        "nightshift",
        "psycopg",
        "sqlalchemy.dialects.postgresql.psycopg",
        "sqlalchemy.dialects.sqlite",
    ),
    *("celery.app.amqp", "celery.bin.celery", "celery.concurrency.thread", "celery.worker.consumer"),
    *("celery.worker.strategy", "kombu.transport.redis"),
    *("diffusers.guiders", "tests.chaos.launch", "tests.chaos.reference"),
)
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True)
class Request:
    """A process to be: ``python -m entry arguments`` in a folder. ``stdout``, ``stderr``: where its output is appended.

    ``through``: a module whose ``launch(entry, arguments)`` runs it, and does something to it before.
    """

    entry: str
    arguments: list[str]
    environment: dict[str, str]
    folder: str
    stdout: str
    stderr: str
    through: str = "tests.fork_server"

    def encode(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> Self:
        return cls(**json.loads(line))


class _Server:
    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._connections: dict[int, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._wakeup, writer = socket.socketpair()
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.fileno())
        self._writer = writer
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._wakeup, selectors.EVENT_READ, self._reap)

    def run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                key.data()

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        with connection.makefile("rb") as stream:
            line = stream.readline()
        if not line:
            connection.close()
            return
        pid = os.fork()
        if pid == 0:
            self._become(Request.decode(line))
        self._connections[pid] = connection
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._hung_up(pid))
        _tell(connection, pid)

    def _hung_up(self, pid: int) -> None:
        """Nobody waits for it any more. Its connection is closed when it is reaped."""
        self._selector.unregister(self._connections[pid])
        os.kill(pid, signal.SIGKILL)

    def _reap(self) -> None:
        self._wakeup.recv(4096)
        while self._connections:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            connection = self._connections.pop(pid)
            if connection in {key.fileobj for key in self._selector.get_map().values()}:
                self._selector.unregister(connection)
            _tell(connection, os.waitstatus_to_exitcode(status))
            connection.close()

    def _become(self, request: Request) -> None:
        """In the child: forgets the server, takes its environment and its log, runs, and never returns."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._selector.close()
        for one in (self._listener, self._wakeup, self._writer, *self._connections.values()):
            one.close()
        os.setsid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.environ.clear()
        os.environ.update(request.environment)
        for number, path in ((1, request.stdout), (2, request.stderr)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), number)
        os.chdir(request.folder)
        random.seed()
        gc.unfreeze()
        os._exit(_ended(request))


def _tell(connection: socket.socket, number: int) -> None:
    try:
        connection.sendall(f"{number}\n".encode())
    except OSError:  # the other side is gone: there is nobody to tell
        return


def _ended(request: Request) -> int:
    code: Any
    try:
        code = importlib.import_module(request.through).launch(request.entry, request.arguments)
    except SystemExit as end:
        code = end.code
    except BaseException:  # what an interpreter does at its end
        traceback.print_exc()
        code = 1
    threading._shutdown()  # the interpreter's own end: waits for threads and pools
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else int(code is not None)


def launch(entry: str, arguments: list[str]) -> Any:
    """Runs ``entry`` as ``python -m entry arguments`` would. Returns its exit code."""
    sys.argv = [entry, *arguments]
    return importlib.import_module(entry).main()


def import_packages(*names: str) -> None:
    """All their modules, also those that the product imports when it needs them: each process would import its own."""
    for name in names:
        package = importlib.import_module(name)
        found = [module.name for module in pkgutil.walk_packages(package.__path__, f"{name}.")]
        for module in found:
            if not module.startswith("farm.migrations."):  # Alembic's, for itself alone
                importlib.import_module(module)


def _import_everything() -> None:
    """All that the processes would import one by one, a second here and a second there."""
    gc.disable()  # what is imported stays: to look for garbage among it takes a fifth of the time
    for name in _MODULES:
        importlib.import_module(name)
    import_packages("schemas", "farm", "producer", "worker")
    diffusers = importlib.import_module("diffusers")
    for name in SCHEDULERS.values():
        getattr(diffusers, name)  # which loads its module


def main() -> None:
    _import_everything()
    assert threading.active_count() == 1, "a thread would be lost in every fork"
    gc.enable()
    gc.collect()
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1])
    listener.listen(64)
    _Server(listener).run()


if __name__ == "__main__":
    main()
