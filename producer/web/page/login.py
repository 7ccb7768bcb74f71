"""Where a browser shows its token once, and gets a cookie for it."""

from typing import Any

from fastapi import APIRouter, Request

from producer.web.api import session
from producer.web.callers import NOBODY, Farm
from producer.web.page.forms import Fields, lead_to, own_path
from producer.web.page.templating import page
from schemas.errors import RequestError

router = APIRouter(include_in_schema=False)


@router.get("/login")
def show_login(next: str = "/") -> Any:  # noqa: A002  as the link says it
    """Asks for a token."""
    return page("login.html", NOBODY, next=own_path(next), flaw="")


@router.post("/login")
def log_in(request: Request, farm: Farm, fields: Fields) -> Any:
    """Leads to where the browser wanted to go."""
    led = lead_to(own_path(fields.get("next", "/")))
    try:
        session.log_in(request, led, farm, session.Login(token=fields.get("token", "").strip() or "-"))
    except RequestError as error:
        return page("login.html", NOBODY, error.status, next=own_path(fields.get("next", "/")), flaw=str(error))
    return led


@router.post("/logout")
def log_out() -> Any:
    """Takes the cookie back."""
    led = lead_to("/login")
    session.log_out(led)
    return led
