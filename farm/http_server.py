"""A small HTTP server beside what a process is for: in a thread of its own, until whoever wanted it leaves."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import HTTPServer
from threading import Thread


@contextmanager
def running(server: HTTPServer, thread: Thread) -> Iterator[int]:
    """``thread`` serves, and has begun to. Yields the port; ends the server, and the thread, when left."""
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
