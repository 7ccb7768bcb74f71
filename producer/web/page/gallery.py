"""A batch as a page: its gallery a part at a time, its failures by reason, its throughput."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query
from pydantic import BeforeValidator

from producer.questions.batch_throughput import throughput
from producer.questions.job_pages import JobPage
from producer.questions.job_search import Wanted, found_jobs
from producer.questions.queries import batch_summary
from producer.reports.report_figures import reasons
from producer.web.ahead import shape_of
from producer.web.api.batches import BatchId, cancelable
from producer.web.callers import Caller, Farm, Reader
from producer.web.farm import WebFarm
from producer.web.page.batches import unserved
from producer.web.page.templating import page
from producer.web.page.throughput_plot import plotted
from schemas.schedulers import SCHEDULERS
from schemas.states import JobState

router = APIRouter(prefix="/batches/{batch_id}", include_in_schema=False)

_TILES: Final = 60
#: PostgreSQL has no NUL in its texts, and there is none in anything that could be looked for
_TEXT: Final = Query(max_length=200, pattern=r"^[^\x00]*$")


@dataclass(frozen=True)
class Look:
    """What somebody looks for in a batch, as the filter's form says it; empty texts exclude nothing."""

    state: str = ""
    size: str = ""
    scheduler: str = ""
    text: str = ""
    column: str = ""
    value: str = ""

    @property
    def wanted(self) -> Wanted:
        """For the ledger. A state or scheduler that there is not excludes nothing."""
        meta = (self.column, self.value) if self.column else None
        states = [state for state in JobState if state == self.state]
        return Wanted(states, self.size.replace("×", "x"), SCHEDULERS.get(self.scheduler, ""), self.text, meta)

    def fields(self) -> Mapping[str, str]:
        """Those that say something, for a link."""
        return {name: value for name, value in vars(self).items() if value}


def _look(
    state: Annotated[str, _TEXT] = "",
    size: Annotated[str, _TEXT] = "",
    scheduler: Annotated[str, _TEXT] = "",
    text: Annotated[str, _TEXT] = "",
    column: Annotated[str, _TEXT] = "",
    value: Annotated[str, _TEXT] = "",
) -> Look:
    texts = (state, size, scheduler, text, column, value)
    return Look(*(text.strip() for text in texts))


#: a field that was emptied is the first job
From = Annotated[int, Query(alias="from", ge=1, le=2**53 - 1), BeforeValidator(lambda given: given or 1)]
#: for who has no JavaScript: the part as a page of its own
Whole = Annotated[bool, Query()]
Looked = Annotated[Look, Depends(_look)]


@router.get("")
def show_batch(farm: Farm, caller: Reader, batch_id: BatchId, look: Looked, first: From = 1) -> Any:
    """The batch, and the beginning of what is looked for in it."""
    batch = batch_summary(farm.database, batch_id)
    tiles = _tiles(farm, batch_id, look, first - 1)
    shape, schedulers = shape_of(farm, batch), sorted(SCHEDULERS)
    return page("batch.html", caller, batch=shape, look=look, first=first, schedulers=schedulers,
                states=list(JobState), cancelable=cancelable(farm, caller, [batch_id]),
                unserved=unserved(farm, [] if batch.ended else [batch.pair]), **tiles)  # fmt: skip


@router.get("/tiles")
def show_tiles(farm: Farm, caller: Reader, batch_id: BatchId, look: Looked, first: From = 1) -> Any:
    """The next part of the gallery."""
    return page("_tiles.html", caller, **_tiles(farm, batch_id, look, first - 1))


@router.get("/failures")
def show_failures(farm: Farm, caller: Reader, batch_id: BatchId, whole: Whole = False) -> Any:
    """Why jobs failed, the commonest reason first, with the traceback of the first of each."""
    told = {"batch_id": batch_id, "reasons": reasons(farm.database, batch_id)}
    return _part(caller, "_failures.html", whole, told)


@router.get("/plot")
def show_plot(farm: Farm, caller: Reader, batch_id: BatchId, whole: Whole = False) -> Any:
    """Images a second over time."""
    told = {"batch_id": batch_id, "plot": plotted(throughput(farm.database, batch_id))}
    return _part(caller, "_plot.html", whole, told)


def _part(caller: Caller, template: str, whole: bool, told: Mapping[str, Any]) -> Any:
    return page("part.html" if whole else template, caller, part=template, **told)


def _tiles(farm: WebFarm, batch_id: int, look: Look, after: int) -> dict[str, Any]:
    """Jobs, and where the next part begins."""
    found: JobPage = found_jobs(farm.database, batch_id, look.wanted, after, _TILES)
    more = None if found.after is None else {**look.fields(), "from": found.after + 1}
    return {"batch_id": batch_id, "jobs": found.jobs, "more": more}
