"""What stands before everything else: notes each request, by its route's template, for paths are without number."""

import time
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from producer.web.metrics import Answered, WebMetrics

#: before the paths of the API's routes, which do not know of it
API_PREFIX: Final = "/api/v1"
#: any others are a stranger's own, as many as he likes
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Counting:
    """An ASGI middleware. A stream counts when it begins."""

    def __init__(self, app: ASGIApp, metrics: WebMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked_at, has_begun = time.monotonic(), False

        def note(status: int) -> None:
            nonlocal has_begun
            has_begun = True
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.answered(Answered(_template(scope), method, status, time.monotonic() - asked_at))

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                note(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception:  # Starlette answers what nobody handles before it comes here
            if not has_begun:
                note(500)
            raise


def _template(scope: Scope) -> str:
    """Of a folder of files: its own path. Of what no route is for, or what was refused before: "none"."""
    path = getattr(scope.get("route"), "path", None)
    if path is None:
        return str(scope.get("root_path") or "none")
    is_of_the_api = scope["path"].startswith(f"{API_PREFIX}/") and not path.startswith(API_PREFIX)
    return f"{API_PREFIX}{path}" if is_of_the_api else str(path)
