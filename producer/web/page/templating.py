"""The page's HTML: Jinja templates that escape everything, and what they call."""

from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from producer.reports.markup import as_html, cut
from producer.web.callers import LOCAL, Caller
from producer.web.picture_urls import image_url, thumbnail_url

_FOLDER: Final = Path(__file__).parent.parent / "templates"
_TITLE_CHARACTERS: Final = 90


def _plain(text: object) -> Markup:
    """A stranger's text on one line, without what turns the writing direction."""
    return Markup(as_html(str(text)))  # noqa: S704  as_html escapes


def _lines(text: str) -> Markup:
    """A stranger's lines, with the spaces that they begin with."""
    return Markup("\n").join(line[: len(line) - len(line.lstrip(" "))] + _plain(line) for line in text.split("\n"))


def _count(number: float) -> str:
    return f"{number:,.0f}"


def _rate(per_second: float | None) -> str:
    """Images a second, or a minute where they are slow."""
    if not per_second:
        return ""
    return f"{per_second:.2f} images/s" if per_second >= 1 else f"{per_second * 60:.1f} images/min"


def _short(text: str) -> str:
    return cut(" ".join(text.split()), _TITLE_CHARACTERS)


def _iso(time: datetime) -> str:
    return time.isoformat()


def _clock(time: datetime) -> str:
    """For who has no JavaScript, which writes it in the reader's own zone."""
    return f"{time:%Y-%m-%d %H:%M} UTC"


_ENVIRONMENT: Final = Environment(
    loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_ENVIRONMENT.filters |= {"plain": _plain, "lines": _lines, "short": _short}
_ENVIRONMENT.filters |= {"count": _count, "rate": _rate, "iso": _iso, "clock": _clock}
_ENVIRONMENT.globals |= {"query": urlencode, "image_url": image_url, "thumbnail_url": thumbnail_url}


def page(template: str, caller: Caller, status: int = 200, **content: Any) -> HTMLResponse:
    """A whole page, or a part of one, for this caller."""
    scopes = {scope.value for scope in caller.rights.scopes}
    told = {"scopes": scopes, "is_local": caller is LOCAL, "caller_name": caller.name, **content}
    return HTMLResponse(_ENVIRONMENT.get_template(template).render(told), status)


def wants_page(request: Request) -> bool:
    """Whether a person asks: everything but the API answers in HTML."""
    return not request.url.path.startswith("/api/")
