"""The API against its own description: whatever may be asked, no answer is one that the description does not promise.

``HYPOTHESIS_PROFILE=long`` asks for longer, and other things each time.
"""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import schemathesis
from hypothesis import settings as hypothesis_settings

from farm.image_store import ImageStore
from producer.web.app import web_app
from producer.web.farm import WebFarm
from schemas.settings import Settings
from tests.integration.ledger_farm import new_ledger, open_batch
from tests.integration.played_worker import render
from tests.integration.web_client import from_this_machine


@pytest.fixture(scope="module")
def api_schema(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("api")
    settings = Settings(home=folder, images_url=str(folder / "images"))
    with closing(new_ledger(settings.database_url)) as database:
        batch_id = open_batch(database, 3)
        render(database, ImageStore(settings.images_url), batch_id, size=2)
    with closing(WebFarm.open(settings)) as farm:
        yield schemathesis.openapi.from_asgi("/api/v1/openapi.json", from_this_machine(web_app(farm)))


schema = schemathesis.pytest.from_fixture("api_schema").exclude(path="/api/v1/events")


@schema.parametrize()
@hypothesis_settings(max_examples=5)
def test_every_answer_is_one_that_the_description_promises(case: Any) -> None:
    case.call_and_validate()
