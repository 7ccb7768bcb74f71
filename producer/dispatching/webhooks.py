"""Sends what is due to the webhook, in a thread of its own: a slow receiver keeps no job from its device.

Table: ``webhook_deliveries``. Connects to the host of ``webhook_url`` and to nothing else: no redirect is followed, no
proxy of the environment used, and the address that was looked at is the one that is connected to.
"""

import http.client
import logging
import socket
import ssl
import time
from contextlib import closing, suppress
from importlib.metadata import version
from threading import Event, Thread, Timer
from typing import Final, Self

from farm.database import Database
from farm.webhook_deliveries import Delivery, claim_delivery, note_events, note_refused, note_sent
from schemas.errors import UnavailableError
from schemas.settings import Settings
from schemas.webhook import WebhookTarget, is_accepted, is_worth_a_retry, signature

log = logging.getLogger("nightshift.webhooks")

_CONNECT_SECONDS: Final = 5.0
#: for a whole request, however slowly its answer drips
_REQUEST_SECONDS: Final = 10.0
#: whoever claimed a delivery and has not told how it went for so long is dead
_CLAIM_SECONDS: Final = 60.0
#: what is due when the dispatcher stops is sent, if that takes no longer
_LAST_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 1.0


class RefusedAddressError(Exception):
    """The host's name leads to an address that it may not be at."""


def webhook_target(settings: Settings) -> WebhookTarget | None:
    """None where none is set. Raises SettingsError where it may not be used."""
    if not settings.webhook_url:
        return None
    return WebhookTarget.parse(settings.webhook_url, settings.webhook_secret, settings.webhook_hosts)


class Webhooks:
    """A context manager: what is due is sent meanwhile, and once more at the end."""

    def __init__(self, database: Database, settings: Settings, request_seconds: float = _REQUEST_SECONDS) -> None:
        """Raises SettingsError as ``webhook_target``."""
        self._database = database
        self._target = webhook_target(settings)
        self._failure_share = settings.webhook_failure_share
        self._request_seconds = request_seconds
        self._stop = Event()
        self._thread: Thread | None = None

    def __enter__(self) -> Self:
        if self._target is not None:
            self._stop.clear()
            self._thread = Thread(target=self._run, name="webhooks", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_LAST_SECONDS + 2 * self._request_seconds)

    def note(self) -> None:
        """Looks for what has happened. Raises UnavailableError."""
        if self._target is not None:
            note_events(self._database, self._failure_share)

    def send_due(self, until: float = float("inf")) -> int:
        """Everything that is due, one after another, while the monotonic clock is before ``until``. Returns how many
        requests were made. Raises UnavailableError: the ledger."""
        num_sent = 0
        while self._target and time.monotonic() < until:
            delivery = claim_delivery(self._database, _CLAIM_SECONDS)
            if delivery is None:
                break
            self._send(self._target, delivery)
            num_sent += 1
        return num_sent

    def _run(self) -> None:
        while not self._stop.wait(_POLL_SECONDS):
            self._try(float("inf"))
        self._try(time.monotonic() + _LAST_SECONDS)

    def _try(self, until: float) -> None:
        try:
            if self._stop.is_set():
                self.note()
            self.send_due(until)
        except UnavailableError as error:
            log.warning("%s; webhooks wait", error)

    def _send(self, target: WebhookTarget, delivery: Delivery) -> None:
        told = f"webhook {delivery.event} of batch {delivery.batch_id}"
        try:
            status = _post(target, delivery, self._request_seconds)
        except RefusedAddressError as error:
            reason, retry = str(error), False
        except (OSError, http.client.HTTPException, UnicodeError) as error:  # the last: of a name that cannot be one
            reason, retry = f"{type(error).__name__} at {target.host_header}", True
        else:
            if is_accepted(status):
                note_sent(self._database, delivery)
                return
            reason, retry = f"{target.host_header} answered {status}", is_worth_a_retry(status)
        again = note_refused(self._database, delivery, worth_a_retry=retry)
        log.warning("%s: %s; %s", told, reason, "it is sent again" if again else "given up")


def _post(target: WebhookTarget, delivery: Delivery, seconds: float) -> int:
    """The answer's status. Raises OSError, HTTPException, RefusedAddressError."""
    body, now = delivery.body.encode(), int(time.time())
    headers = {
        "Host": target.host_header,
        "Content-Type": "application/json",
        "User-Agent": f"nightshift/{version('nightshift')}",
        "Nightshift-Event": delivery.event,
        "Nightshift-Event-Id": delivery.event_id,
        "Nightshift-Signature": signature(target.secret, now, body),
    }
    with closing(_connected(target)) as connection:
        cut = Timer(seconds, _cut, (connection.sock,))
        cut.start()
        try:
            if isinstance(connection.sock, ssl.SSLSocket):
                connection.sock.do_handshake()
            connection.request("POST", target.path, body, headers)
            return connection.getresponse().status
        finally:
            cut.cancel()


def _connected(target: WebhookTarget) -> http.client.HTTPConnection:
    """TLS has not shaken hands yet: that is in the request's time."""
    connection = http.client.HTTPConnection(target.host, target.port)
    connection.sock = socket.create_connection((_address(target), target.port), _CONNECT_SECONDS)
    if target.is_https:
        connection.sock = ssl.create_default_context().wrap_socket(
            connection.sock, server_hostname=target.host, do_handshake_on_connect=False
        )
    return connection


def _address(target: WebhookTarget) -> str:
    found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    addresses = [str(entry[4][0]) for entry in found]
    for address in addresses:
        if not target.may_connect(address):
            raise RefusedAddressError(f"{target.host} leads to {address}, which webhook_hosts does not name")
    return addresses[0]


def _cut(connected: socket.socket) -> None:
    with suppress(OSError):
        socket.socket.shutdown(connected, socket.SHUT_RDWR)  # TLS's own would not be seen by who reads just now
