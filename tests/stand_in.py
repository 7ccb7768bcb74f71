"""What stands in the place of a Python process: has the fork server make one, and ends as that one ends.

``become(ENTRY, ARGUMENTS)`` never returns. ``$FORK_SERVER`` is the socket of the fork server, ``$FORK_THROUGH`` its
``Request.through``. Signals to end go on to the other process, whose output goes where this one's would; a SIGKILL of
this one closes the connection, at which the fork server kills the other. Standard library only: it starts in no time.
"""

import json
import os
import resource
import signal
import socket
import sys

_PASSED_ON = (signal.SIGTERM, signal.SIGINT)


def become(entry: str, arguments: list[str]) -> None:
    """Ends with the exit code, or by the signal, of ``python -m entry arguments``."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)  # until there is somebody to pass them on to
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(os.environ["FORK_SERVER"])
    request = {
        "entry": entry,
        "arguments": arguments,
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "stdout": f"/proc/{os.getpid()}/fd/1",
        "stderr": f"/proc/{os.getpid()}/fd/2",
        "through": os.environ["FORK_THROUGH"],
    }
    connection.sendall(json.dumps(request).encode() + b"\n")
    answers = connection.makefile("r")
    pid = int(answers.readline())
    for number in _PASSED_ON:
        signal.signal(number, lambda sent, _: os.kill(pid, sent))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
    _end(int(answers.readline() or -signal.SIGKILL))


def _end(code: int) -> None:
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    become(sys.argv[1], sys.argv[2:])
