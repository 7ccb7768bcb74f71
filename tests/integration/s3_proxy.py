"""An HTTP proxy in front of an S3 server that says no, says nothing, or hangs up, as often as it is told to."""

from collections import deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Semaphore, Thread
from typing import Self

_OF_ONE_CONNECTION = ("Expect", "Connection", "Transfer-Encoding")


@dataclass(frozen=True)
class Fault:
    """An answer in the server's place. ``status`` 0: none at all, for as long as the proxy lives; 1: it hangs up.

    ``after``: the server has done what it was asked for, and its answer is lost.
    """

    status: int
    code: str = ""
    message: str = ""
    after: bool = False


PASS = Fault(-1)
SILENCE = Fault(0)
HANGUP = Fault(1)
ANSWER_LOST = Fault(1, after=True)
SLOW_DOWN = Fault(503, "SlowDown", "Please reduce your request rate.")
INTERNAL_ERROR = Fault(500, "InternalError", "We encountered an internal error. Please try again.")


class S3Proxy:
    """A context manager. ``requests``: what was asked for so far, as (method, path with query). ``asked``: may be
    acquired once for each request that met a fault."""

    def __init__(self, to_port: int) -> None:
        self.requests: list[tuple[str, str]] = []
        self.asked = Semaphore(0)
        self.closed = Event()
        self.to_port = to_port
        self._faults: deque[tuple[str, Fault]] = deque()
        self._lock = Lock()
        self._server = _Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closed.set()
        self._server.shutdown()
        self._server.server_close()

    def fail(self, method: str, fault: Fault, times: int = 1) -> None:
        """The next so many requests of this method."""
        with self._lock:
            self._faults.extend([(method, fault)] * times)

    def let_pass(self, method: str, times: int) -> None:
        """So many requests of this method, before the faults that are asked for next."""
        self.fail(method, PASS, times)

    def forget_faults(self) -> None:
        with self._lock:
            self._faults.clear()

    def num(self, method: str) -> int:
        return sum(1 for asked, _ in self.requests if asked == method)

    def take_fault(self, method: str, path: str) -> Fault | None:
        with self._lock:
            self.requests.append((method, path))
            if not self._faults or self._faults[0][0] != method:
                return None
            fault = self._faults.popleft()[1]
            if fault is PASS:
                return None
            self.asked.release()
            return fault


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, proxy: S3Proxy) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.proxy = proxy


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def __getattr__(self, name: str) -> Callable[[], None]:
        """``do_GET`` and its like: the server calls one by the request's method."""
        if not name.startswith("do_"):
            raise AttributeError(name)
        return self._any

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.server.proxy.take_fault(self.command, self.path)
        if fault is None:
            self._answer(*self._asked(body))
        elif fault.status >= 100:
            content = f"<Error><Code>{fault.code}</Code><Message>{fault.message}</Message></Error>".encode()
            self._answer(fault.status, [("Content-Length", str(len(content)))], content)
        else:
            self._break_off(fault, body)

    def _break_off(self, fault: Fault, body: bytes) -> None:
        if fault.after:
            self._asked(body)
        if fault.status == SILENCE.status:
            self.server.proxy.closed.wait()
        self.close_connection = True

    def _asked(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        with closing(HTTPConnection("127.0.0.1", self.server.proxy.to_port)) as server:
            headers = {name: value for name, value in self.headers.items() if name not in _OF_ONE_CONNECTION}
            server.request(self.command, self.path, body, headers)
            answer = server.getresponse()
            content = answer.read()
            kept = [(name, value) for name, value in answer.getheaders() if name not in _OF_ONE_CONNECTION]
            return answer.status, kept, content

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing: the tests look at ``requests``."""
