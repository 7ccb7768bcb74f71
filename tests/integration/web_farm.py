"""A farm with a web page, for tests: settings, a ledger, and clients that ask from here or from afar."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.testclient import TestClient

from farm.database import Database
from farm.tokens import add_token
from producer.questions.queries import batch_summaries
from producer.web.app import web_app
from producer.web.farm import WebFarm
from producer.web.metrics import TOLD_TO_NOBODY, WebMetrics
from schemas.settings import Settings
from schemas.token import Scope, TokenRights, new_token, token_sha256
from tests.integration.ledger_farm import new_ledger
from tests.integration.web_client import AFAR, web_client

ALL = frozenset(Scope)


class FarmWithPage:
    """``page``: what the application works with."""

    def __init__(self, page: WebFarm, database: Database) -> None:
        self.page = page
        self.database = database
        self._num_tokens = 0

    @cached_property
    def _app(self) -> FastAPI:
        """One for all clients, as in a real process: making it takes far longer than a request."""
        return web_app(self.page)

    @property
    def num_batches(self) -> int:
        return len(batch_summaries(self.database, 10_000))

    def token(self, *scopes: Scope, **limits: Any) -> str:
        """A new one; for everything where no scope is named."""
        self._num_tokens += 1
        token = new_token()
        rights = TokenRights(frozenset(scopes) or ALL, **limits)
        add_token(self.database, f"token {self._num_tokens}", token_sha256(token), rights)
        return token

    @contextmanager
    def client(self, token: str | None = None, peer: str = AFAR) -> Iterator[TestClient]:
        """From another machine, with this token."""
        headers = {"authorization": f"Bearer {token}"} if token else {}
        with web_client(self._app, peer, **headers) as client:
            yield client


@contextmanager
def farm_with_page(folder: Path, metrics: WebMetrics = TOLD_TO_NOBODY, **settings: Any) -> Iterator[FarmWithPage]:
    given = Settings(**{"home": folder / "home", "images_url": str(folder / "images"), **settings})
    with closing(new_ledger(given.database_url)) as database, closing(WebFarm.open(given, metrics=metrics)) as page:
        yield FarmWithPage(page, database)
