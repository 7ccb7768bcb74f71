"""Batches with what is ahead of them, as pages and the API show them.

All that look at a moment share the rates: one question to the ledger, however many batches there are.
"""

from collections.abc import Sequence
from typing import Final

from farm.leases import ledger_time
from producer.questions.outlook import GOES_ON, outlook_at
from producer.questions.queries import BatchSummary
from producer.questions.rate import batch_rates
from producer.web.api.shapes import BatchShape
from producer.web.farm import WebFarm

_SHARED: Final = "rates"


def shapes_of(farm: WebFarm, batches: Sequence[BatchSummary]) -> list[BatchShape]:
    """In their order."""
    if all(batch.ended for batch in batches):
        return [BatchShape.of(batch, GOES_ON) for batch in batches]
    rates = farm.shared.get(_SHARED, lambda: batch_rates(farm.database))
    now, window = ledger_time(farm.database), farm.settings.window
    return [BatchShape.of(batch, outlook_at(now, batch, window, rates.get(batch.id))) for batch in batches]


def shape_of(farm: WebFarm, batch: BatchSummary) -> BatchShape:
    """The same of one."""
    return shapes_of(farm, [batch])[0]
