"""The API against its own description: whatever may be asked, no answer is one that the description does not promise.

``HYPOTHESIS_PROFILE=long`` asks for longer, in more ways, and other things each time.
"""

import secrets
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import settings as hypothesis_settings
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

from farm.image_store import ImageStore
from producer.web.app import web_app
from producer.web.farm import WebFarm
from schemas.settings import Settings
from tests.integration.ledger_farm import new_ledger, open_batch
from tests.integration.played_worker import render
from tests.integration.web_client import from_this_machine

IS_LONG = hypothesis_settings.default.max_examples > 1000
PHASES = ("examples", "coverage", "fuzzing", "stateful") if IS_LONG else ("examples", "fuzzing")
#: What no schema can say: that rows make specs, that bytes are a manifest, that a cursor was given here.
JUDGED_BY_MORE = (
    *("POST /api/v1/batches", "POST /api/v1/manifests", "GET /api/v1/batches"),
    "GET /api/v1/batches/{batch_id}/jobs",
)
ACCEPTED = ["2xx", "3xx", 401, 403, 404, 409, 429, "5xx"]


def config() -> SchemathesisConfig:
    refused = {"checks": {"positive_data_acceptance": {"expected-statuses": [*ACCEPTED, 422]}}}
    return SchemathesisConfig.from_dict(
        {
            "seed": secrets.randbelow(2**31) if IS_LONG else 1,
            "generation": {"max-examples": 100 if IS_LONG else 6, "database": "none"},
            "phases": {name: {"enabled": name in PHASES} for name in ("examples", "coverage", "fuzzing", "stateful")},
            "operations": [{"include-name": name, **refused} for name in JUDGED_BY_MORE],
        }
    )


def failures(event: events.ScenarioFinished) -> Iterator[str]:
    for checks in event.recorder.checks.values():
        for check in checks:
            if check.failure_info is not None:
                info = check.failure_info
                yield f"{event.recorder.label}: {info.failure.title}: {info.failure.message}\n{info.code_sample}"


def test_every_answer_is_one_that_the_description_promises(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, images_url=str(tmp_path / "images"))
    with closing(new_ledger(settings.database_url)) as database:
        batch_id = open_batch(database, 3)
        render(database, ImageStore(settings.images_url), batch_id, size=2)
    found: list[str] = []
    asked: set[str] = set()
    with closing(WebFarm.open(settings)) as farm:
        app = from_this_machine(web_app(farm))
        schema: Any = schemathesis.openapi.from_asgi("/api/v1/openapi.json", app, config=config())
        for event in from_schema(schema.exclude(path="/api/v1/events")).execute():  # which has no end
            assert not isinstance(event, events.NonFatalError | events.FatalError), event
            if isinstance(event, events.ScenarioFinished):
                asked.add(event.recorder.label)
                found += failures(event)
    assert found == []
    assert len(asked) >= 17
