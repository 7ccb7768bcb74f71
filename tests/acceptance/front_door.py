"""Runs `nightshift` in forks of one process that has imported it: importing takes a second or two, forking nothing.

``python -m tests.acceptance.front_door``: a line of JSON on stdin asks for a command (``Request``), a line on stdout is
its exit code. Each command is a process of its own and begins where ``python -m nightshift`` does after its imports.
"""

import importlib
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import nightshift
from tests.fork_server import import_packages


@dataclass(frozen=True)
class Request:
    """A command to run. ``stdout``, ``stderr``: files for what it prints."""

    arguments: list[str]
    environment: dict[str, str]
    stdout: str
    stderr: str


class FrontDoor:
    """The process that forks. One command at a time."""

    def __init__(self) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("NIGHTSHIFT_")}
        command = [sys.executable, "-m", "tests.acceptance.front_door"]
        self._process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def run(
        self, arguments: list[str], environment: dict[str, str], timeout_seconds: float
    ) -> "subprocess.CompletedProcess[str]":
        """As ``subprocess.run(..., capture_output=True, text=True)``."""
        with tempfile.TemporaryDirectory() as folder:
            stdout, stderr = Path(folder) / "stdout", Path(folder) / "stderr"
            code = self._ask(Request(arguments, environment, str(stdout), str(stderr)), timeout_seconds)
            return subprocess.CompletedProcess(arguments, code, stdout.read_text(), stderr.read_text())

    def close(self) -> None:
        _pipe(self._process.stdin).close()
        self._process.wait()
        _pipe(self._process.stdout).close()

    def _ask(self, request: Request, timeout_seconds: float) -> int:
        stdin, stdout = _pipe(self._process.stdin), _pipe(self._process.stdout)
        stdin.write(json.dumps(asdict(request)).encode() + b"\n")
        stdin.flush()
        if not select.select([stdout], [], [], timeout_seconds)[0]:
            raise subprocess.TimeoutExpired(request.arguments, timeout_seconds)
        return int(stdout.readline())


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe


def main() -> None:
    """Serves until stdin is closed."""
    importlib.import_module("alembic.command")  # which the first command in a new home makes its tables with
    import_packages("schemas", "farm", "producer")  # which import without torch
    assert threading.active_count() == 1, "a thread would be lost in every fork"
    while line := sys.stdin.buffer.readline():
        child = os.fork()
        if child == 0:
            os._exit(_become(Request(**json.loads(line))))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _become(request: Request) -> int:
    os.environ.clear()
    os.environ.update(request.environment)
    sys.argv = ["nightshift", *request.arguments]
    with open(os.devnull, "rb") as stdin, open(request.stdout, "wb") as stdout, open(request.stderr, "wb") as stderr:
        for number, file in enumerate((stdin, stdout, stderr)):
            os.dup2(file.fileno(), number)
    try:
        nightshift.main()
    except SystemExit as end:
        return _ended(end.code)
    except BaseException:  # as the interpreter does
        sys.excepthook(*sys.exc_info())
        return _ended(1)
    return _ended(0)


def _ended(code: Any) -> int:
    """What the interpreter does at its end: it waits for threads, and writes what is left to write."""
    threading._shutdown()  # type: ignore[attr-defined]
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else int(code is not None)


if __name__ == "__main__":
    main()
