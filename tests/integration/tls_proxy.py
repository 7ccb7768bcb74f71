"""TLS in front of a Redis that was built without it: ends the encryption, and hands the bytes on."""

import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

_BLOCK_BYTES = 1 << 16


class Certificates:
    """A certificate authority of our own (``ca``), and a server's certificate of it for 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        self.ca, self.certificate, self.key = (folder / name for name in ("ca.pem", "server.pem", "server.key"))
        ca_key, request, extensions = (folder / name for name in ("ca.key", "server.csr", "server.ext"))
        extensions.write_text("subjectAltName=IP:127.0.0.1\n")
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        _openssl("req", "-x509", *curve, "-keyout", ca_key, "-out", self.ca, "-days", "2", "-subj", "/CN=test CA")
        _openssl("req", *curve, "-keyout", self.key, "-out", request, "-subj", "/CN=redis")
        signed = ["-CA", self.ca, "-CAkey", ca_key, "-CAcreateserial", "-extfile", extensions, "-days", "2"]
        _openssl("x509", "-req", "-in", request, "-out", self.certificate, *signed)


@contextmanager
def tls_proxy(certificates: Certificates, to_port: int) -> Iterator[int]:
    """Yields its port on 127.0.0.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.certificate, certificates.key)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        Thread(target=_accept, args=(listener, context, to_port), daemon=True).start()
        yield listener.getsockname()[1]


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def _accept(listener: socket.socket, context: ssl.SSLContext, to_port: int) -> None:
    with suppress(OSError):  # the listener was closed: the end
        while True:
            Thread(target=_serve, args=(listener.accept()[0], context, to_port), daemon=True).start()


def _serve(plain: socket.socket, context: ssl.SSLContext, to_port: int) -> None:
    """One connection, by one thread, for a TLS socket is not for two. A client that is refused goes away."""
    with (
        suppress(OSError),
        plain,
        context.wrap_socket(plain, server_side=True) as client,
        _connected(to_port) as server,
    ):
        client.settimeout(0.01)
        server.settimeout(0.01)
        while _hand_on(client, server) and _hand_on(server, client):
            pass


def _connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port))


def _hand_on(source: socket.socket, target: socket.socket) -> bool:
    """False at the end."""
    try:
        block = source.recv(_BLOCK_BYTES)
    except TimeoutError:
        return True
    target.sendall(block)
    return bool(block)
