"""The web application: the page, and the API below ``/api/v1``, for `nightshift web` and for tests.

Routes are plain functions on a few threads, for the ledger is asked synchronously; only bodies and events are async.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Final

from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from producer.web.api import batches, events, images, jobs, session, submit
from producer.web.counting import API_PREFIX, Counting
from producer.web.farm import WebFarm
from producer.web.guard import Guard
from producer.web.openapi import describe
from producer.web.page import batches as page_batches
from producer.web.page import devices, gallery, grids, login, playground
from producer.web.page import jobs as page_jobs
from producer.web.page.errors import answer_with_pages

#: they share the few connections that a process has to PostgreSQL, each for a moment
_THREADS: Final = 12
_PAGES: Final = (page_batches, gallery, page_jobs, grids, devices, playground, login)
_STATIC: Final = Path(__file__).parent / "static"
_ABOUT: Final = "Submit prompts, follow batches, take images. Errors are `application/problem+json`."


def web_app(farm: WebFarm) -> FastAPI:
    """``farm``: whoever opened it closes it."""
    app = FastAPI(
        title="Nightshift", version=version("nightshift"), description=_ABOUT, openapi_url="/api/v1/openapi.json",
        docs_url=None, redoc_url=None, lifespan=_lifespan, separate_input_output_schemas=False,
        telemetry={"tracing": False},
    )  # fmt: skip
    app.state.farm = farm
    for noun in (batches, submit, jobs, images, events, session):
        app.include_router(noun.router, prefix=API_PREFIX)
    describe(app)
    for part in _PAGES:
        app.include_router(part.router)
    app.mount("/static", StaticFiles(directory=_STATIC))
    answer_with_pages(app)
    app.add_middleware(Guard, farm=farm)
    app.add_middleware(Counting, metrics=farm.metrics)
    return app


@asynccontextmanager
async def _lifespan(_app: FastAPI) -> AsyncIterator[None]:
    current_default_thread_limiter().total_tokens = _THREADS
    yield
