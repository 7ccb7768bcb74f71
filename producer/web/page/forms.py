"""Forms of the page, as browsers send them, and where they lead."""

from typing import Annotated
from urllib.parse import parse_qsl, urlsplit

from fastapi import Depends, Request
from fastapi.responses import RedirectResponse

from schemas.errors import RequestError


async def _fields(request: Request) -> dict[str, str]:
    """Of the last of equal names. Lines end as in a manifest: browsers send CRLF, whatever stands in the field. Raises
    RequestError for what no form of ours sends."""
    try:
        text = (await request.body()).decode("ascii")
        fields = dict(parse_qsl(text, keep_blank_values=True, max_num_fields=100, errors="strict"))
    except ValueError:
        raise _no_form() from None
    if any("\0" in value for value in fields.values()):  # browsers send none, and PostgreSQL has none in its texts
        raise _no_form()
    return {name: value.replace("\r\n", "\n") for name, value in fields.items()}


def _no_form() -> RequestError:
    return RequestError(422, "request", "this is no form of this page")


Fields = Annotated[dict[str, str], Depends(_fields)]


def lead_to(path: str) -> RedirectResponse:
    """After a form: the browser asks for the page anew, and reloading it sends nothing twice."""
    return RedirectResponse(path, 303)


def own_path(given: str) -> str:
    """A path of this page, from what a URL said; the first page for anything else."""
    parts = urlsplit(given)
    is_ours = given.startswith("/") and not given.startswith(("//", "/\\")) and not parts.netloc and given.isprintable()
    return given if is_ours and "\\" not in given else "/"
