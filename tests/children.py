"""The tests' side of the fork server: starts it, asks it for processes, waits for their ends."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

from farm.tether import tethered
from tests.fork_server import Request

ROOT = Path(__file__).parents[1]
_START_SECONDS = 120.0
_THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TRANSFORMERS_VERBOSITY": "error"}


class Child:
    """A process that the fork server made. Closing its connection kills it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = b""
        self.pid = int(self._line(_START_SECONDS) or 0)
        self.code: int | None = None

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self.wait(0.0)

    def wait(self, seconds: float) -> int | None:
        if self.code is None and (line := self._line(seconds)) is not None:
            self.code = int(line or -signal.SIGKILL)
            self._connection.close()
        return self.code

    def signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def end(self, seconds: float = 20.0) -> int:
        """SIGTERM, and SIGKILL for one that does not hear it."""
        self.signal(signal.SIGTERM)
        if self.wait(seconds) is None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGKILL)
        code = self.wait(10.0)
        assert code is not None, f"process {self.pid} survived SIGKILL"
        return code

    def forget(self) -> None:
        """Closes the connection, which kills it, if it still runs."""
        self._connection.close()

    def _line(self, seconds: float) -> str | None:
        """A line of the fork server's; empty where it is gone; None where nothing comes in time."""
        deadline = time.monotonic() + seconds
        while b"\n" not in self._buffer:
            self._connection.settimeout(max(0.0, deadline - time.monotonic()) or 1e-4)
            try:
                piece = self._connection.recv(100)
            except (TimeoutError, BlockingIOError):
                return None
            if not piece:
                return ""
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()


class ForkServer:
    """A context manager. ``folder``: a short name, for a Unix socket lies in it."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "forks.sock"
        self._log = folder / "forks.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._children: list[Child] = []

    def __enter__(self) -> Self:
        command = tethered([sys.executable, "-P", "-m", "tests.fork_server", str(self.socket)], signal.SIGKILL)
        environment = {**os.environ, **_THREADS, "PYTHONPATH": str(ROOT)}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=ROOT)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        for child in self._children:
            child.forget()

    def wait(self) -> None:
        """Until it can fork."""
        deadline = time.monotonic() + _START_SECONDS
        while not self.socket.exists():
            if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the fork server did not start: {self._log.read_text()[-2000:]}")
            time.sleep(0.05)

    def fork(self, request: Request) -> Child:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(self.socket))
        connection.sendall(request.encode())
        self._children.append(Child(connection))
        return self._children[-1]
