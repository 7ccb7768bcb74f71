"""What follows a submit: one ordinary tick, so that rendering starts without waiting for a dispatcher."""

from contextlib import closing

from farm.database import Database
from farm.embedded_redis import is_running
from schemas.errors import BrokerUnavailableError
from schemas.settings import Settings


def first_tick(database: Database, settings: Settings, batch_id: int) -> str | None:
    """Releases what may begin. Returns a sentence where no farm runs here that could render the accepted batch.

    Raises:
        BrokerUnavailableError: Redis does not answer; its sentence says that the batch is safe all the same.
    """
    if not settings.broker_url and not is_running(settings.home):
        return f"no farm runs here yet: `nightshift up` renders batch {batch_id}"
    from farm.broker import open_broker  # noqa: PLC0415  Celery takes longer to import than many a batch to submit
    from producer.dispatching.dispatcher import Dispatcher  # noqa: PLC0415

    try:
        with closing(open_broker(settings)) as broker, closing(Dispatcher(database, broker, settings)) as dispatcher:
            dispatcher.tick()
    except BrokerUnavailableError as error:
        raise BrokerUnavailableError(
            f"{error}; batch {batch_id} is safe in the ledger and renders once Redis and a dispatcher run:"
            " do not submit it again"
        ) from error
    return None
