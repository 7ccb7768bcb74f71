"""Errors as RFC 9457 has them: ``application/problem+json``, with the codes of ``schemas.errors``."""

import json
from collections.abc import Callable
from http import HTTPStatus
from math import ceil
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from farm.secrets import without_secrets
from producer.web.metrics import WebMetrics
from schemas.errors import (
    InputError,
    LeaseLostError,
    NightshiftError,
    NotFoundError,
    RequestError,
    UnavailableError,
)
from schemas.printable import printable, shown

Answer = Callable[[Request, Exception], "ProblemResponse"]

MEDIA_TYPE: Final = "application/problem+json"
_RETRY_SECONDS: Final = 5
#: the first that an error is an instance of
_STATUSES: Final = ((NotFoundError, 404), (InputError, 422), (LeaseLostError, 409), (UnavailableError, 503))
#: of what is wrong
SHOWN_ERRORS: Final = 100


class Wrong(BaseModel):
    """One thing that is wrong: in a row of a manifest, or in the request itself (``where``: ``query.limit``)."""

    reason: str
    where: str | None = None
    line: int | None = None
    column: str | None = None
    value: str | None = None


class Problem(BaseModel):
    """What went wrong. ``code`` is for programs, ``detail`` a sentence for people."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    #: the first hundred
    errors: list[Wrong] = Field(default=[])
    #: all of them
    num_errors: int = 0


class ProblemResponse(Response):
    """``Problem`` as bytes: ASCII, for what was asked may be no Unicode that could be encoded."""

    media_type = MEDIA_TYPE

    def __init__(self, problem: Problem, headers: dict[str, str] | None = None) -> None:
        self.code = problem.code
        super().__init__(problem.model_dump(exclude_none=True), problem.status, headers)

    def render(self, content: Any) -> bytes:
        return json.dumps(content).encode()


class RefusedRowsError(InputError):
    """Rows of a manifest are wrong: ``wrong`` has the first of them."""

    code = "manifest"

    def __init__(self, message: str, wrong: list[Wrong], num_wrong: int) -> None:
        super().__init__(message)
        self.wrong = wrong
        self.num_wrong = num_wrong


def problem_response(
    status: int, code: str, detail: str, wrong: tuple[list[Wrong], int] = ([], 0), headers: dict[str, str] | None = None
) -> ProblemResponse:
    """``wrong``: the first of what is wrong, and how much there is in all."""
    title = HTTPStatus(status).phrase
    problem = Problem(title=title, status=status, detail=detail, code=code, errors=wrong[0], num_errors=wrong[1])
    return ProblemResponse(problem, headers)


def answer_with_problems(app: FastAPI) -> None:
    """Every error of ours, of FastAPI and of Starlette becomes a problem."""
    metrics: WebMetrics = app.state.farm.metrics
    app.add_exception_handler(NightshiftError, _noted(_of_ours, metrics))
    app.add_exception_handler(RequestValidationError, _noted(_of_validation, metrics))
    app.add_exception_handler(HTTPException, _noted(_of_starlette, metrics))
    app.add_exception_handler(Exception, _noted(_of_nobody, metrics))


def _noted(answer: Answer, metrics: WebMetrics) -> Answer:
    def noted(request: Request, error: Exception) -> ProblemResponse:
        problem = answer(request, error)
        metrics.refused(problem.code)
        return problem

    return noted


def response_of(error: NightshiftError) -> ProblemResponse:
    """The answer to whoever's request raised this."""
    detail = without_secrets(str(error))
    if isinstance(error, RequestError):
        after = {"Retry-After": str(ceil(error.retry_after))} if error.retry_after is not None else {}
        proof = {"WWW-Authenticate": "Bearer"} if error.status == HTTPStatus.UNAUTHORIZED else {}
        return problem_response(error.status, error.request_code, detail, headers=after | proof)
    wrong = (error.wrong, error.num_wrong) if isinstance(error, RefusedRowsError) else ([], 0)
    status = next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)
    after = {"Retry-After": str(_RETRY_SECONDS)} if status in (409, 503) else {}
    return problem_response(status, error.code, detail, wrong, after)


def _of_nobody(_request: Request, _error: Exception) -> ProblemResponse:
    """A mistake of ours: the log has it, and the answer says nothing of how we are made."""
    return problem_response(500, "error", "something went wrong here; the log of `nightshift web` says what")


def _of_ours(_request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, NightshiftError)
    return response_of(error)


def _of_validation(_request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, RequestValidationError)
    wrong = [_wrong(item) for item in error.errors()]
    detail = "; ".join(f"{one.where}: {one.reason}" for one in wrong[:3])
    return problem_response(422, "request", detail, (wrong[:SHOWN_ERRORS], len(wrong)))


def _wrong(item: Any) -> Wrong:
    where = printable(".".join(map(str, item["loc"])))[:200]
    return Wrong(where=where, reason=printable(item["msg"])[:1000], value=shown(item.get("input")))


def _of_starlette(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, HTTPException)
    codes = {404: "not_found", 405: "method", 413: "too_large", 400: "request"}
    headers = dict(error.headers) if error.headers else {}
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(sorted(_methods_of(request))) or headers.get("Allow", "")
    return problem_response(
        error.status_code, codes.get(error.status_code, "request"), str(error.detail), headers=headers
    )


def _methods_of(request: Request) -> set[str]:
    """What may be asked of a path of the API: Starlette says what its first route takes, and a path may have two."""
    described = request.app.openapi()["paths"].items()
    ours = [methods for path, methods in described if compile_path(path)[0].match(request.url.path)]
    return {method.upper() for methods in ours for method in methods}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For OpenAPI: what a route may answer besides what it is for."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in sorted(statuses)}
