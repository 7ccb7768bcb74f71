"""Who asks, and a browser's cookie: pages cannot show a token in a header when they load a picture or listen."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from farm.database import Database
from farm.leases import ledger_time
from farm.tokens import token_of
from producer.web.api.shapes import CallerShape
from producer.web.callers import COOKIE, Caller, Farm, Known, check_rate, peer_of
from producer.web.origins import is_over_tls
from producer.web.problems import problems
from schemas.errors import DatabaseUnavailableError, RequestError
from schemas.token import token_sha256

router = APIRouter(tags=["session"], responses=problems(400, 403, 413, 421, 422, 429, 503))

_DAYS: Final = 30


class Login(BaseModel):
    """What `nightshift token new` has shown."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"token": "nst_secret"}]})

    token: Annotated[str, Field(pattern=r"^[!-~]{1,200}$")]


class Health(BaseModel):
    status: str


@router.get("/health", response_model=Health)
def health(farm: Farm) -> Any:
    """Whether the ledger answers, or did two seconds ago. Needs no token."""
    if flaw := farm.shared.get("health", lambda: _flaw(farm.database)):
        raise DatabaseUnavailableError(flaw)
    return Health(status="ok")


@router.get("/caller", response_model=CallerShape, responses=problems(401))
def show_caller(caller: Known) -> Any:
    """Who asks, and what they may."""
    return _shape(caller)


@router.post("/session", response_model=CallerShape, responses=problems(401))
def log_in(request: Request, response: Response, farm: Farm, login: Login) -> Any:
    """Gives the browser a cookie in the token's place; it ends with the token, or after thirty days."""
    check_rate(farm.rates, f"address {peer_of(request)}")
    record = token_of(farm.database, token_sha256(login.token))
    if record is None:
        raise RequestError(401, "token", "this is no valid token; `nightshift token new` makes one")
    is_secure = is_over_tls(request.url.scheme, request.headers)
    response.set_cookie(COOKIE, login.token, _DAYS * 86_400, httponly=True, samesite="strict", secure=is_secure)
    return _shape(Caller(record.id, record.name, record.rights))


@router.delete("/session", status_code=204)
def log_out(response: Response) -> None:
    """Takes the cookie back."""
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")


def _flaw(database: Database) -> str:
    """Why the ledger does not answer; empty where it does. As an answer, that it does not is shared, too."""
    try:
        ledger_time(database)
    except DatabaseUnavailableError as error:
        return str(error)
    return ""


def _shape(caller: Caller) -> CallerShape:
    rights = caller.rights
    return CallerShape(name=caller.name, scopes=sorted(rights.scopes), max_priority=rights.max_priority,
                       max_pending=rights.max_pending)  # fmt: skip
