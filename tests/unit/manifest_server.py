"""A web server with manifests, as the test wants it: with ranges or without, with errors, or breaking off."""

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class ManifestServer:
    """``files``: path → content. ``statuses``: path → what is answered instead. ``cut``: path → bytes that are sent."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.files: dict[str, bytes] = {}
        self.statuses: dict[str, int] = {}
        self.redirects: dict[str, str] = {}
        self.cut: dict[str, int] = {}
        self.gives_ranges = True
        self.num_sent = 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    manifests: ManifestServer

    def log_message(self, *_arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(with_content=False)

    def do_GET(self) -> None:
        self._answer(with_content=True)

    def _answer(self, with_content: bool) -> None:
        path = self.path.partition("?")[0]
        given = self.manifests
        content = given.files.get(path, b"")
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")) if given.gives_ranges else None
        if path in given.redirects:
            self.send_response(302)
            self.send_header("Location", given.redirects[path])
            self._send(b"", with_content)
        elif path in given.statuses or path not in given.files:
            self.send_response(given.statuses.get(path, 404))
            self._send(b"", with_content)
        elif found:
            start, end = int(found[1]), min(int(found[2]), len(content) - 1)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(content)}")
            self._send(content[start : end + 1], with_content)
        else:
            self.send_response(200)
            if path.endswith(".gz"):
                self.send_header("Content-Encoding", "gzip")  # as Apache says of such files
            self._send(content, with_content)

    def _send(self, content: bytes, with_content: bool) -> None:
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        content = content[: self.manifests.cut.get(self.path, len(content))] if with_content else b""
        for start in range(0, len(content), 65_536):
            try:
                self.wfile.write(content[start : start + 65_536])
            except OSError:
                break
            self.manifests.num_sent += len(content[start : start + 65_536])
        if self.path in self.manifests.cut:
            self.close_connection = True


@pytest.fixture
def manifest_server() -> Iterator[ManifestServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        manifests = ManifestServer(f"http://127.0.0.1:{server.server_address[1]}")
        server.RequestHandlerClass = type("Handler", (_Handler,), {"manifests": manifests})
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))  # how often it looks whether to end
        thread.start()
        yield manifests
        server.shutdown()
        thread.join()
