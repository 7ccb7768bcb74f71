"""What a supervisor starts in the place of a worker process: has the fork server make one, and ends as that one ends.

``python -I -S stand_in.py ARGUMENTS...``; the socket of the fork server and the log are in the environment. Signals to
end go on to the worker; a SIGKILL of this process closes the connection, at which the fork server kills the worker.
"""

import json
import os
import resource
import signal
import socket
import sys


def main() -> None:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(os.environ["CHAOS_FORKS"])
    request = {
        "entry": "worker.process",
        "arguments": sys.argv[1:],
        "environment": dict(os.environ),
        "log": os.environ["CHAOS_LOG"],
    }
    connection.sendall(json.dumps(request).encode() + b"\n")
    answers = connection.makefile("r")
    pid = int(answers.readline())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda sent, _: os.kill(pid, sent))
    code = int(answers.readline() or -signal.SIGKILL)
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
        os.kill(os.getpid(), -code)
    sys.exit(code)


main()
