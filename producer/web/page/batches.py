"""The batches as a page: how far each is, and what may be done with it."""

from collections.abc import Collection
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query

from farm.workers import live_workers
from producer.questions.batch_pages import batches_before
from producer.questions.queries import batch_summary, waiting_pairs
from producer.web.ahead import shape_of, shapes_of
from producer.web.api import batches as api
from producer.web.api.batches import BatchId, cancelable
from producer.web.callers import Farm, Known, Operator, Reader, Viewer
from producer.web.farm import WebFarm
from producer.web.page.forms import Fields, lead_to
from producer.web.page.templating import page
from schemas.errors import RequestError

router = APIRouter(include_in_schema=False)

_SHOWN: Final = 30


@router.get("/")
def show_batches(farm: Farm, caller: Reader, before: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None) -> Any:
    """The youngest batches; the older ones a page at a time."""
    found = batches_before(farm.database, before, [], _SHOWN + 1)
    shapes = shapes_of(farm, found[:_SHOWN])
    older = found[_SHOWN - 1].id if len(found) > _SHOWN else None
    ours = cancelable(farm, caller, [shape.id for shape in shapes])
    return page("batches.html", caller, batches=shapes, older=older, is_first=before is None, cancelable=ours,
                unserved=unserved(farm))  # fmt: skip


@router.get("/batches/{batch_id}/card")
def show_card(farm: Farm, caller: Viewer, batch_id: BatchId) -> Any:
    """One batch as it stands among the others: for a page that hears of a new one."""
    shape = shape_of(farm, batch_summary(farm.database, batch_id))
    return page("_card.html", caller, batch=shape, cancelable=cancelable(farm, caller, [batch_id]))


@router.post("/batches/{batch_id}/pause")
def pause(farm: Farm, caller: Operator, batch_id: BatchId) -> Any:
    """Nothing more of it begins."""
    api.pause_batch(farm, caller, batch_id)
    return lead_to(f"/batches/{batch_id}")


@router.post("/batches/{batch_id}/resume")
def resume(farm: Farm, caller: Operator, batch_id: BatchId) -> Any:
    """Goes on."""
    api.resume_batch(farm, caller, batch_id)
    return lead_to(f"/batches/{batch_id}")


@router.post("/batches/{batch_id}/cancel")
def cancel(farm: Farm, caller: Known, batch_id: BatchId, fields: Fields) -> Any:
    """What waits; with ``now`` also what renders."""
    left = api.cancel_batch(farm, caller, batch_id, api.Cancellation(now="now" in fields))
    return lead_to(f"/batches/{batch_id}" if left.batch else "/")


@router.post("/batches/{batch_id}/retry")
def retry(farm: Farm, caller: Operator, batch_id: BatchId) -> Any:
    """Its failed jobs."""
    api.retry_batch(farm, caller, batch_id)
    return lead_to(f"/batches/{batch_id}")


@router.post("/batches/{batch_id}/reprioritise")
def reprioritise(farm: Farm, caller: Operator, batch_id: BatchId, fields: Fields) -> Any:
    """Before others, or behind them."""
    given = fields.get("priority", "")
    if not (given.isascii() and given.isdigit() and len(given) == 1):
        raise RequestError(422, "request", "a priority is a number from 0 to 9")
    api.reprioritise_batch(farm, caller, batch_id, api.Order(priority=int(given)))
    return lead_to(f"/batches/{batch_id}")


def unserved(farm: WebFarm, among: Collection[str] | None = None) -> list[str]:
    """Pairs whose jobs wait and that no live worker pins; of these, where some are named."""
    served = live_workers(farm.database, farm.settings.lease_seconds)
    waiting = waiting_pairs(farm.database) - served.keys()
    return sorted(waiting if among is None else waiting & set(among))
