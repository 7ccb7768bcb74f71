"""Who asks: a token's holder, or somebody on this machine. A token comes as a header, or as the page's cookie."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends, Request

from farm.tokens import token_of
from producer.web.farm import WebFarm, farm_of
from producer.web.origins import is_from_this_machine
from producer.web.rates import Rates
from schemas.errors import RequestError
from schemas.token import Scope, TokenRights, token_sha256

COOKIE: Final = "nightshift_token"
_LOCAL: Final = TokenRights(frozenset(Scope))
_SCHEME: Final = "bearer "
_USUAL_PRIORITY: Final = 5


@dataclass(frozen=True)
class Caller:
    """``token_id``, ``name``: None for whoever is on this machine and needs none."""

    token_id: int | None
    name: str | None
    rights: TokenRights

    def priority(self, given: int | None) -> int:
        """Of a batch; where none is given, the usual one, or the token's ceiling below it. Raises RequestError for one
        above that."""
        most = self.rights.max_priority
        if given is not None and given > most:
            raise RequestError(403, "priority_ceiling", f"priority {given}: this token's may be {most} at most")
        return min(_USUAL_PRIORITY, most) if given is None else given


LOCAL: Final = Caller(None, None, _LOCAL)
#: of whom nothing is known, and who is offered nothing
NOBODY: Final = Caller(None, None, TokenRights(frozenset()))


def shown_token(request: Request) -> str | None:
    """What the request shows as its token."""
    header = request.headers.get("authorization")
    if header is not None:
        return header[len(_SCHEME) :].strip() if header.lower().startswith(_SCHEME) else ""
    return request.cookies.get(COOKIE)


def caller_of(request: Request, farm: Annotated[WebFarm, Depends(farm_of)]) -> Caller:
    """Raises RequestError: 401 without a valid token where one is needed, 429 for who asks too often."""
    return _counted(request, farm, farm.rates)


def viewer_of(request: Request, farm: Annotated[WebFarm, Depends(farm_of)]) -> Caller:
    """Whoever may read, for what an open page asks for by itself, picture after picture: that is counted apart, so that
    who looks at it can go on. Raises RequestError as the others do."""
    return _having(Scope.READ, _counted(request, farm, farm.viewing_rates))


def check_rate(rates: Rates, asker: str, *, is_counted: bool = True) -> None:
    """Raises RequestError for who asks too often."""
    if wait := rates.wait_seconds(asker, is_counted=is_counted):
        raise RequestError(429, "rate", f"more than {rates.per_minute:,} requests a minute", wait)


def _counted(request: Request, farm: WebFarm, rates: Rates) -> Caller:
    """A token that is none is counted by the address, among few: it may be guessed at."""
    found = _known(request, farm, peer_of(request))
    if found is LOCAL:
        return found
    if found is None:
        check_rate(farm.rates, f"address {peer_of(request)}")
        raise RequestError(401, "token", "this needs a valid token: Authorization: Bearer nst_…")
    check_rate(rates, f"token {found.token_id}")
    return found


def peer_of(request: Request) -> str | None:
    """The address at the other end of the connection: nobody else's word is taken for it."""
    return request.client.host if request.client else None


def _known(request: Request, farm: WebFarm, peer: str | None) -> Caller | None:
    token = shown_token(request)
    if token is not None:
        return _holder(farm, f"address {peer}", token_sha256(token))
    needs_none = not farm.settings.web_require_token and is_from_this_machine(peer, request.headers)
    return LOCAL if needs_none else None


def _holder(farm: WebFarm, address: str, sha256: str) -> Caller | None:
    """Of the token with this hash. Where an address has sent too many wrong ones, no other costs the ledger a question;
    those that were right before still do, for they may be revoked. Raises RequestError."""
    if sha256 not in farm.seen_tokens:
        check_rate(farm.rates, address, is_counted=False)
    record = token_of(farm.database, sha256)
    farm.seen_tokens.note(sha256, is_valid=record is not None)
    return Caller(record.id, record.name, record.rights) if record else None


def caller_with(scope: Scope) -> Callable[[Caller], Caller]:
    """For routes: whoever may do this. Raises RequestError: 403 for a token without the scope."""

    def checked(caller: Annotated[Caller, Depends(caller_of)]) -> Caller:
        return _having(scope, caller)

    return checked


def _having(scope: Scope, caller: Caller) -> Caller:
    if scope not in caller.rights.scopes:
        raise RequestError(403, "scope", f"this token is not for that: it lacks the scope {scope}")
    return caller


Known = Annotated[Caller, Depends(caller_of)]
Reader = Annotated[Caller, Depends(caller_with(Scope.READ))]
Viewer = Annotated[Caller, Depends(viewer_of)]
Submitter = Annotated[Caller, Depends(caller_with(Scope.SUBMIT))]
Operator = Annotated[Caller, Depends(caller_with(Scope.OPERATE))]
Farm = Annotated[WebFarm, Depends(farm_of)]
