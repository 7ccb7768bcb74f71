"""What stands before every route: whose request it is meant to be, how large it may be, and what browsers are told."""

from collections.abc import Awaitable, Callable
from types import MappingProxyType
from typing import Any, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from producer.web.farm import WebFarm
from producer.web.origins import cross_site_flaw
from producer.web.problems import ProblemResponse, problem_response

API: Final = "/api/"
#: routes that read their body themselves, and bound it: after they know who asks
_OWN_BOUND: Final = frozenset({"/api/v1/batches", "/api/v1/manifests"})
_BODY_BYTES: Final = 65_536
#: two prompts of 20,000 characters, of which a browser makes nine bytes each, and the other fields
_LARGER: Final = MappingProxyType({"/try": 400_000})

_HEADERS: Final = MappingProxyType(
    {
        "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
        " connect-src 'self'; font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "referrer-policy": "same-origin",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
    }
)


class Guard:
    """An ASGI middleware."""

    def __init__(self, app: ASGIApp, farm: WebFarm) -> None:
        self._app = app
        self._farm = farm

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        send = _with_headers(send)
        refusal = self._refusal(scope)
        if refusal is not None:
            self._farm.metrics.refused(refusal.code)
            await refusal(scope, receive, send)
        elif scope["path"] in _OWN_BOUND:
            await self._app(scope, receive, send)
        else:
            await self._app(scope, _bounded(receive, _LARGER.get(scope["path"], _BODY_BYTES)), send)

    def _refusal(self, scope: Scope) -> ProblemResponse | None:
        headers = Headers(scope=scope)
        if not self._farm.hosts.allow(headers.get("host")):
            return problem_response(421, "host", "this is not a name of this farm; NIGHTSHIFT_WEB_HOSTS lists them")
        flaw = cross_site_flaw(scope["method"], scope["path"].startswith(API), headers)
        if flaw is not None:
            return problem_response(403, "cross_site", f"the request is refused: {flaw}")
        return None


def _bounded(receive: Receive, most: int) -> Receive:
    seen = 0

    async def bounded() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > most:
            raise HTTPException(413, f"the body has more than {most:,} bytes, which are the most here")
        return message

    return bounded


def _with_headers(send: Send) -> Callable[[Any], Awaitable[None]]:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers[name] = value
            headers.setdefault("cache-control", "no-store")
        await send(message)

    return sending
