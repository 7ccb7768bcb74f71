"""A TCP proxy on loopback that delays, resets, goes deaf, and cuts connections in the middle of a COMMIT.

One thread for each direction of a connection. PostgreSQL's clients send COMMIT as a simple query of its own; a worker's
finish is one statement without one.
"""

import contextlib
import random
import socket
import struct
import time
from collections.abc import Callable
from threading import Event, Lock, Thread
from typing import Literal

Cut = Literal["commit lost", "answer lost"]
CUTS: tuple[Cut, ...] = ("commit lost", "answer lost")
#: what the end of a transaction is known by: a COMMIT, or one of a worker's finished images, which commit by themselves
ENDS = (b"COMMIT\0", b'"finish_seconds"')
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER with no time: close sends RST


class _Link:
    """A client's connection and the server's."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        #: what is sent goes nowhere and nothing comes back, for as long as the link lives
        self.deaf = Event()
        #: the next answer of the server never arrives
        self.loses_answer = Event()

    def reset(self) -> None:
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class Proxy:
    """``connect`` opens a connection to the server behind it."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self._connect = connect
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        self._links: set[_Link] = set()
        self._lock = Lock()
        self._delay_seconds = 0.0
        self._cut: tuple[Cut, bytes] | None = None
        self.num_cut = 0
        Thread(target=self._accept, daemon=True).start()

    def delay(self, seconds: float) -> None:
        """Every piece of data, in either direction, takes so much longer from now on."""
        self._delay_seconds = seconds

    def reset(self, share: float, chance: random.Random) -> None:
        """Resets about this share of the connections, one at least."""
        links = self._open_links()
        for link in chance.sample(links, max(1, round(len(links) * share)) if links else 0):
            link.reset()

    def go_deaf(self) -> list[_Link]:
        """The connections that are open now are half-open ones from here on; new ones work."""
        links = self._open_links()
        for link in links:
            link.deaf.set()
        return links

    def forget(self, links: list[_Link]) -> None:
        """What the kernel does with a half-open connection in the end: its client gets an error."""
        for link in links:
            link.reset()

    def cut_next_commit(self, cut: Cut, end: bytes) -> None:
        """The next such end never reaches the server; or it does, and its answer never reaches the client."""
        self._cut = cut, end

    def close(self) -> None:
        self._listener.close()
        for link in self._open_links():
            link.reset()

    def _open_links(self) -> list[_Link]:
        with self._lock:
            return list(self._links)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                link = _Link(client, self._connect())
            except OSError:  # the server does not run
                client.close()
                continue
            with self._lock:
                self._links.add(link)
            for target in (self._upstream, self._downstream):
                Thread(target=self._relay, args=(target, link), daemon=True).start()

    def _relay(self, step: Callable[[_Link], bool], link: _Link) -> None:
        with contextlib.suppress(OSError):
            while step(link):
                pass
        link.reset()
        with self._lock:
            self._links.discard(link)

    def _upstream(self, link: _Link) -> bool:
        data = link.client.recv(65536)
        if link.deaf.is_set():
            return bool(data)
        time.sleep(self._delay_seconds)
        if cut := self._taken_cut(data):
            if cut == "commit lost":
                return False
            link.loses_answer.set()
        link.server.sendall(data)
        return bool(data)

    def _downstream(self, link: _Link) -> bool:
        data = link.server.recv(65536)
        if link.deaf.is_set():
            return bool(data)
        if link.loses_answer.is_set():
            return False
        time.sleep(self._delay_seconds)
        link.client.sendall(data)
        return bool(data)

    def _taken_cut(self, data: bytes) -> Cut | None:
        with self._lock:
            if self._cut is None or self._cut[1] not in data:
                return None
            (cut, _), self._cut = self._cut, None
            self.num_cut += 1
            return cut
