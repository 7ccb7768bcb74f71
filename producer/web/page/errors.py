"""Errors as a page. Who needs a token is led to where it is asked for."""

import json
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from starlette.exceptions import HTTPException

from producer.web.callers import NOBODY
from producer.web.page.templating import page, wants_page
from producer.web.problems import answer_with_problems
from schemas.errors import NightshiftError

Handler = Callable[[Request, Exception], Response | Awaitable[Response]]


def answer_with_pages(app: FastAPI) -> None:
    """To people; programs that ask the API get problems."""
    answer_with_problems(app)
    for kind in (NightshiftError, RequestValidationError, HTTPException):
        handler = app.exception_handlers[kind]
        app.add_exception_handler(kind, _handler(handler))


def _handler(of_api: Handler) -> Callable[[Request, Exception], Response]:
    def handle(request: Request, error: Exception) -> Response:
        problem = of_api(request, error)
        assert isinstance(problem, Response)
        return _page(request, problem) if wants_page(request) else problem

    return handle


def _page(request: Request, problem: Response) -> Response:
    """What the problem says, for people."""
    if problem.status_code == HTTPStatus.UNAUTHORIZED and request.method == "GET":
        wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/login?next={quote(wanted, safe='')}", 303)
    told = _told(problem)
    made = page("error.html", NOBODY, problem.status_code, **told)
    for name in ("retry-after", "allow"):
        if name in problem.headers:
            made.headers[name] = problem.headers[name]
    return made


def _told(problem: Response) -> dict[str, str]:
    content = json.loads(bytes(problem.body))
    return {"heading": content["title"], "detail": content["detail"]}
