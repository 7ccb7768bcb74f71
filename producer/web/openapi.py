"""The API's own description, ``/api/v1/openapi.json``: what FastAPI finds in the routes, and what it cannot find."""

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from producer.web.api.orders import RowsOrder
from producer.web.problems import Problem

_REF: Final = "#/components/schemas/{model}"
_TOKEN: Final = {
    "type": "http",
    "scheme": "bearer",
    "description": "`nightshift token new` makes one. On the farm's own machine none is needed.",
}
#: what needs no token
_PUBLIC: Final = frozenset({"/api/v1/health", "/api/v1/session"})


def describe(app: FastAPI) -> None:
    """Gives the application its description; made when it is asked for."""

    def made() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _described(app)
        return app.openapi_schema

    app.openapi = made  # type: ignore[method-assign]


def _described(app: FastAPI) -> dict[str, Any]:
    found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    components = found.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for model in (Problem, RowsOrder):
        own = model.model_json_schema(ref_template=_REF)
        schemas |= own.pop("$defs", {}) | {model.__name__: own}
    components["securitySchemes"] = {"token": _TOKEN}
    for path, methods in found["paths"].items():
        for operation in methods.values():
            operation["security"] = [{}] if path in _PUBLIC else [{"token": []}, {}]
    return found
