"""How a host's workers are, for whoever asks by HTTP on the loopback interface.

``GET /healthz``: 200 while the supervisor looks after its processes. ``GET /readyz``: 200 while a device takes packs,
with each device's pair and state. Both answer with JSON; 503 otherwise.
"""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Final

from farm.database import Database
from farm.http_server import running
from farm.workers import workers_by_id
from schemas.errors import SettingsError, UnavailableError
from worker.host.seat import Seat
from worker.host.supervisor import Supervisor

_LOOPBACK: Final = "127.0.0.1"
#: A supervisor that has not looked at its processes for this long is stuck. A ledger that does not answer holds it up
#: for seconds.
_LIVE_SECONDS: Final = 60.0
#: Whoever connects and says nothing does not stay.
_PATIENCE_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Health:
    """What is answered: (status, JSON)."""

    database: Database
    supervisor: Supervisor

    def live(self) -> tuple[int, dict[str, Any]]:
        is_live = time.monotonic() - self.supervisor.looked_at < _LIVE_SECONDS
        return (200 if is_live else 503), {"live": is_live, "host": socket.gethostname()}

    def ready(self) -> tuple[int, dict[str, Any]]:
        try:
            devices = self.devices()
        except UnavailableError as error:
            return 503, {"ready": False, "error": str(error)}
        is_ready = any(device["state"] == "ready" for device in devices)
        return (200 if is_ready else 503), {"ready": is_ready, "host": socket.gethostname(), "devices": devices}

    def devices(self) -> list[dict[str, Any]]:
        """Each with its pair, state, process and error. Raises UnavailableError."""
        seats = self.supervisor.seats
        rows = workers_by_id(self.database, [seat.worker_id for seat in seats])
        return [_device(seat, rows.get(seat.worker_id)) for seat in seats]


def _device(seat: Seat, worker: Any) -> dict[str, Any]:
    process = seat.process
    return {
        "device": str(seat.device),
        "pair": seat.pair,
        "state": _state(seat, worker),
        "worker_id": seat.worker_id or None,
        "process_id": process and process.pid,
        "num_deaths": seat.num_deaths,
        "error": worker and worker.error,
    }


def _state(seat: Seat, worker: Any) -> str:
    if seat.is_out_of_service:
        return "out of service"
    if seat.process is None:
        return "drained" if seat.is_drained else "waiting"
    if worker is None:
        return "starting"
    return "draining" if worker.draining_since is not None else worker.state


@contextmanager
def answering(health: Health, port: int) -> Iterator[int]:
    """Answers on this port of the loopback interface, 0 for any that is free; the port.

    Raises SettingsError where it is taken.
    """
    try:
        server = ThreadingHTTPServer((_LOOPBACK, port), _handler(health))
    except OSError as error:
        raise SettingsError(f"health_port: {port} cannot be listened on: {error.strerror}") from error
    thread = Thread(target=server.serve_forever, name="health", daemon=True)
    thread.start()
    with running(server, thread) as its_port:
        yield its_port


def _handler(health: Health) -> type[BaseHTTPRequestHandler]:
    answers: dict[str, Callable[[], tuple[int, dict[str, Any]]]] = {"/healthz": health.live, "/readyz": health.ready}

    class Handler(BaseHTTPRequestHandler):
        timeout = _PATIENCE_SECONDS

        def do_GET(self) -> None:
            answer = answers.get(self.path)
            status, content = answer() if answer else (404, {"error": f"there are {' and '.join(answers)}"})
            body = json.dumps(content).encode() + b"\n"
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing: a probe comes every few seconds."""

    return Handler
