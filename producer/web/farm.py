"""What every request of the web page works with: the settings, the ledger, who may ask how often, what happens."""

import time
from dataclasses import dataclass
from threading import BoundedSemaphore
from typing import Final, Self

from fastapi import Request

from farm.database import Database
from farm.schema import ensure_schema
from producer.web.metrics import TOLD_TO_NOBODY, WebMetrics
from producer.web.origins import Hosts
from producer.web.pulse import Pulse
from producer.web.rates import Rates
from producer.web.seen_tokens import SeenTokens
from producer.web.shared_answers import SharedAnswers
from schemas.settings import Settings

#: answers are worked on by so many threads
NUM_THREADS: Final = 12
#: each thread has its connection, and so does what looks for events: who shows a page waits for nobody who submits
_NUM_CONNECTIONS: Final = NUM_THREADS + 1
#: so many open pages of one token may each ask for as many pictures as a program may send requests
_VIEWING: Final = 50
#: requests that write jobs into the ledger at a time: each holds a thread, and SQLite has one writer anyway
_SUBMITTING: Final = 4
#: manifests that lie in the temporary folder at a time
_UPLOADING: Final = 16


@dataclass(frozen=True)
class WebFarm:
    """One for each process."""

    settings: Settings
    database: Database
    hosts: Hosts
    rates: Rates
    #: of pictures, and of what an open page asks for by itself
    viewing_rates: Rates
    seen_tokens: SeenTokens
    pulse: Pulse
    shared: SharedAnswers
    submitting: BoundedSemaphore
    uploading: BoundedSemaphore
    metrics: WebMetrics

    @classmethod
    def open(cls, settings: Settings, bound: str = "127.0.0.1", metrics: WebMetrics = TOLD_TO_NOBODY) -> Self:
        """``bound``: where we listen; ``metrics``: what is noted of requests. To be closed.

        Raises:
            SettingsError: ``web_hosts`` names no host.
            UnavailableError: the ledger does not answer, or is of another version.
        """
        hosts = Hosts.parse(settings.web_hosts, bound)
        database = Database(settings.database_url, num_connections=_NUM_CONNECTIONS)
        try:
            ensure_schema(database)
        except BaseException:
            database.close()
            raise
        rates = Rates(settings.web_requests_per_minute, time.monotonic)
        viewing_rates = Rates(_VIEWING * settings.web_requests_per_minute, time.monotonic)
        seen = SeenTokens()
        pulse, shared = Pulse(database, settings), SharedAnswers(time.monotonic)
        submitting, uploading = BoundedSemaphore(_SUBMITTING), BoundedSemaphore(_UPLOADING)
        return cls(settings, database, hosts, rates, viewing_rates, seen, pulse, shared, submitting, uploading, metrics)

    def close(self) -> None:
        """Ends every stream of events."""
        self.pulse.close()
        self.database.close()


def farm_of(request: Request) -> WebFarm:
    """For routes: ``Annotated[WebFarm, Depends(farm_of)]``."""
    farm: WebFarm = request.app.state.farm
    return farm
