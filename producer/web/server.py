"""`nightshift web` as a process: serves until it is told to stop, and then lets the requests in hand finish."""

import signal
import socket
import sys
from contextlib import closing
from typing import Any, Final

import uvicorn

from farm.tokens import has_token
from producer.web.app import web_app
from producer.web.farm import WebFarm
from producer.web.origins import is_loopback
from producer.web.told_metrics import told_metrics
from schemas.errors import InputError, UnavailableError
from schemas.printable import printable
from schemas.settings import Settings

_STOP_SECONDS: Final = 10
_BACKLOG: Final = 512


def serve(settings: Settings, host: str, port: int) -> None:
    """Until SIGTERM or Ctrl-C.

    Raises:
        InputError: strangers could reach it, and there is no token.
        UnavailableError: the address cannot be listened at, or the ledger does not answer.
        SettingsError: the port for metrics is taken.
    """
    with told_metrics(settings) as metrics, closing(WebFarm.open(settings, host, metrics)) as farm:
        if not is_loopback(host) and not has_token(farm.database):
            raise InputError(
                f"at {printable(host)} others can reach the web page, and there is no token: `nightshift token new NAME"
                " --scope read` makes one; --host 127.0.0.1 is for this machine alone"
            )
        with _listener(host, port) as listener:
            print(f"the web page is at {_url(listener)}; Ctrl-C stops it", file=sys.stderr, flush=True)
            _Server(farm).run([listener])


class _Server(uvicorn.Server):
    def __init__(self, farm: WebFarm) -> None:
        # No header is believed about who asks: what a proxy says anybody can say.
        super().__init__(uvicorn.Config(web_app(farm), proxy_headers=False, server_header=False, access_log=False,
                                        log_config=None, timeout_graceful_shutdown=_STOP_SECONDS))  # fmt: skip
        self._farm = farm

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        # uvicorn raises the signal again that stopped it: a stop that was asked for is no error.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        super().run(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Streams of events have no end of their own."""
        self._farm.pulse.close()
        await super().shutdown(sockets)


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        place = f"{printable(host)} port {port}"
        raise UnavailableError(f"cannot listen at {place}: {reason}; --port names another") from None


def _url(listener: socket.socket) -> str:
    name: Any = listener.getsockname()
    host = f"[{name[0]}]" if listener.family == socket.AF_INET6 else name[0]
    return f"http://{host}:{name[1]}"
