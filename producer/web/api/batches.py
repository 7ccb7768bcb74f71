"""Batches over HTTP: listed, seen, paused, resumed, canceled, tried again, put in another order."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Depends, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from farm import ledger
from farm.submissions import batches_of
from producer import changes
from producer.questions.batch_pages import batches_before
from producer.questions.queries import batch_summary
from producer.web.ahead import shape_of
from producer.web.api.orders import WHOLE
from producer.web.api.shapes import BatchPage, BatchShape
from producer.web.callers import Caller, Farm, Known, Operator, Reader
from producer.web.cursors import MAX_CHARACTERS, after_cursor, cursor
from producer.web.farm import WebFarm
from producer.web.problems import problems
from schemas.errors import NotFoundError, RequestError
from schemas.states import BatchState
from schemas.token import Scope

router = APIRouter(prefix="/batches", tags=["batches"], responses=problems(400, 401, 403, 421, 422, 429, 503))

_MAX_ID: Final = 2**31 - 1
BatchId = Annotated[int, Path(ge=1, le=_MAX_ID, description="The batch's number.", examples=[3])]
Limit = Annotated[int, Query(ge=1, le=1000, description="Rows of a page, at the most.")]
Cursor = Annotated[str | None, Query(max_length=MAX_CHARACTERS, description="`next` of the page before.")]


def _without_default(schema: dict[str, Any]) -> None:
    del schema["default"]


class Order(BaseModel):
    """A new place among the batches; what is left out stays."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra={"examples": [{"priority": 9}],
                                                                              "minProperties": 1})  # fmt: skip

    priority: Annotated[int, Field(ge=0, le=9, json_schema_extra=_without_default), WHOLE] = 5
    weight: Annotated[float, Field(ge=0.001, le=1000, json_schema_extra=_without_default)] = 1.0

    def given(self, name: str) -> Any:
        """None for what is left out."""
        return getattr(self, name) if name in self.model_fields_set else None


class Cancellation(BaseModel):
    """``now``: what renders is stopped, too, within a third of a lease."""

    model_config = ConfigDict(extra="forbid", strict=True)

    now: bool = False


class Canceled(BaseModel):
    """``batch``: null for one that was never opened, and is discarded."""

    batch: BatchShape | None


class Retried(BaseModel):
    num_retried: int


@dataclass(frozen=True)
class Stretch:
    """Batches by their numbers, both ends among them."""

    first: int
    last: int


def _stretch(
    first: Annotated[int, Query(alias="from", ge=1, le=_MAX_ID, description="None with a lower number.")] = 1,
    last: Annotated[int, Query(alias="to", ge=1, lt=_MAX_ID, description="None with a higher number.")] = _MAX_ID - 1,
) -> Stretch:
    return Stretch(first, last)


@contextmanager
def conflicts() -> Iterator[None]:
    """It is there, so what is not found is a state that it is not in. Raises RequestError."""
    try:
        yield
    except NotFoundError as error:
        raise RequestError(409, "state", str(error)) from error


def cancelable(farm: WebFarm, caller: Caller, batch_ids: Collection[int]) -> Collection[int]:
    """Those of them that the caller may cancel: any, or those that its own token handed in."""
    if Scope.OPERATE in caller.rights.scopes:
        return batch_ids
    if Scope.SUBMIT not in caller.rights.scopes or caller.token_id is None:
        return ()
    return batches_of(farm.database, caller.token_id, batch_ids)


@router.get("", response_model=BatchPage)
def list_batches(
    farm: Farm,
    _caller: Reader,
    stretch: Annotated[Stretch, Depends(_stretch)],
    state: Annotated[list[BatchState], Query(description="Only these; all where none is named.")] = [],  # noqa: B006
    limit: Limit = 100,
    cursor_text: Annotated[Cursor, Query(alias="cursor")] = None,
) -> Any:
    """The batches, the youngest first."""
    states, asked = sorted(set(state)), astuple(stretch)
    after = after_cursor(cursor_text, "batches", states, *asked)
    before = stretch.last + 1 if after is None else after
    found = batches_before(farm.database, before, states, limit + 1, stretch.first)
    page, more = found[:limit], len(found) > limit
    items = [BatchShape.of(batch) for batch in page]
    return BatchPage(items=items, next=cursor(page[-1].id, "batches", states, *asked) if more else None)


@router.get("/{batch_id}", response_model=BatchShape, responses=problems(404))
def show_batch(farm: Farm, _caller: Reader, batch_id: BatchId) -> Any:
    """One batch, with what is ahead of it."""
    return shape_of(farm, batch_summary(farm.database, batch_id))


@router.post("/{batch_id}/pause", response_model=BatchShape, responses=problems(404, 409))
def pause_batch(farm: Farm, _caller: Operator, batch_id: BatchId) -> Any:
    """Nothing more of it begins; what renders is finished."""
    batch = batch_summary(farm.database, batch_id)
    with conflicts():
        return BatchShape.of(changes.pause(farm.database, batch.id))


@router.post("/{batch_id}/resume", response_model=BatchShape, responses=problems(404, 409))
def resume_batch(farm: Farm, _caller: Operator, batch_id: BatchId) -> Any:
    """Goes on with a paused batch."""
    batch = batch_summary(farm.database, batch_id)
    with conflicts():
        return BatchShape.of(changes.resume(farm.database, batch.id))


@router.post("/{batch_id}/cancel", response_model=Canceled, responses=problems(404, 413))
def cancel_batch(
    farm: Farm, caller: Known, batch_id: BatchId, how: Annotated[Cancellation | None, Body()] = None
) -> Any:
    """Cancels what waits, at once; what renders is finished, unless `now`. Images stay. Who submitted the batch may do
    it without the scope `operate`."""
    if batch_id not in cancelable(farm, caller, [batch_id]):
        sentence = "this token is not for that: it lacks the scope operate, and has not submitted the batch itself"
        raise RequestError(403, "scope", sentence)
    batch = batch_summary(farm.database, batch_id)
    left = changes.cancel(farm.database, batch, now=how.now if how else False)
    return Canceled(batch=BatchShape.of(left) if left else None)


@router.post("/{batch_id}/retry", response_model=Retried, responses=problems(404, 409))
def retry_batch(farm: Farm, _caller: Operator, batch_id: BatchId) -> Any:
    """Gives its failed jobs another try, with all attempts anew."""
    batch = batch_summary(farm.database, batch_id)
    with conflicts():
        return Retried(num_retried=ledger.retry_failed(farm.database, batch.id))


@router.post("/{batch_id}/reprioritise", response_model=BatchShape, responses=problems(404, 409, 413))
def reprioritise_batch(farm: Farm, caller: Operator, batch_id: BatchId, order: Order) -> Any:
    """Puts it before or behind others; it holds for every pack that a worker claims from now on."""
    priority, weight = order.given("priority"), order.given("weight")
    if priority is None and weight is None:
        raise RequestError(422, "request", "priority, weight, or both")
    if priority is not None:
        caller.priority(priority)
    batch = batch_summary(farm.database, batch_id)
    with conflicts():
        return BatchShape.of(changes.reprioritise(farm.database, batch, priority, weight))
