"""The web application as somebody reaches it: from this machine, or from another."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

HERE = "127.0.0.1"
#: a documentation address: somebody else's machine
AFAR = "192.0.2.7"


@contextmanager
def web_client(app: ASGIApp, peer: str = HERE, **headers: str) -> Iterator[TestClient]:
    """``app``: a ``web_app``; ``peer``: who asks; ``headers``: of every request."""
    with TestClient(app, base_url="http://127.0.0.1:8470", client=(peer, 50_000), headers=headers) as client:
        yield client


def from_this_machine(app: ASGIApp) -> Any:
    """For clients that cannot say where they ask from."""

    async def asked(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = [(name, value) for name, value in scope["headers"] if name != b"host"]
            scope = {**scope, "client": (HERE, 50_000), "headers": [*headers, (b"host", b"localhost")]}
        await app(scope, receive, send)

    return asked
