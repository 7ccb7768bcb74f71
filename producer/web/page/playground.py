"""A prompt to try: a small form that submits one job before all others, and shows its image when it is there."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, BackgroundTasks, Query

from farm.workers import live_workers
from producer.manifests.manifest import read_rows
from producer.questions.job_results import JobResult
from producer.questions.queries import batch_summary
from producer.reports.markup import cut
from producer.submitting.submit_options import SubmitOptions, batch_request, read_options
from producer.web.callers import Caller, Farm, Reader, Submitter
from producer.web.farm import WebFarm
from producer.web.intake import Asked, Intake, begin
from producer.web.page.forms import Fields, lead_to
from producer.web.page.jobs import JobName, named_job
from producer.web.page.templating import page
from producer.web.page.try_form import USUAL, carried, row_of, shown_of
from producer.web.problems import RefusedRowsError
from schemas.errors import InputError, RequestError
from schemas.schedulers import SCHEDULERS
from schemas.token import Scope

router = APIRouter(include_in_schema=False)

_HIGHEST: Final = 9
_NAME_CHARACTERS: Final = 60
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@router.get("/try")
def show_form(farm: Farm, caller: Reader, job: Annotated[JobName | None, Query(alias="from")] = None) -> Any:
    """Empty, or as a job was rendered."""
    if not job:
        return _form(farm, caller, {**USUAL, "refiner": "on", "pair": _served_pair(farm)})
    found = named_job(farm, job)
    pair = batch_summary(farm.database, found.batch_id).pair
    pair = pair if pair in farm.settings.known_pairs() else _served_pair(farm)
    return _form(farm, caller, {**shown_of(found.spec), "pair": pair}, found)


@router.post("/try")
def try_prompt(farm: Farm, caller: Submitter, fields: Fields, after: BackgroundTasks) -> Any:
    """Leads to the job, or back to the form with what is wrong."""
    job = _carried_job(farm, caller, fields)
    try:
        batch_id = _submitted(farm, caller, fields, job)
    except RefusedRowsError as error:
        wrong = "; ".join(f"{one.column or 'the row'}: {one.reason}" for one in error.wrong)
        return _form(farm, caller, fields, job, wrong or str(error))
    except InputError as error:
        return _form(farm, caller, fields, job, str(error))
    after.add_task(begin, farm, batch_id)
    return lead_to(f"/batches/{batch_id}/jobs/1")


def _carried_job(farm: WebFarm, caller: Caller, fields: Mapping[str, str]) -> JobResult | None:
    """Which filled the form. Raises RequestError for who may not see it, NotFoundError."""
    name = fields.get("from")
    if name is None:
        return None
    if Scope.READ not in caller.rights.scopes:
        raise RequestError(403, "scope", f"this token is not for that: it lacks the scope {Scope.READ}")
    return named_job(farm, name)


def _served_pair(farm: WebFarm) -> str:
    """That of the settings where it is served; else the one that the most live workers serve."""
    live, known = live_workers(farm.database, farm.settings.lease_seconds), farm.settings.known_pairs()
    served = {pair: num for pair, num in live.items() if pair in known}
    if farm.settings.pair in served or not served:
        return farm.settings.pair
    return min(served, key=lambda pair: (-served[pair], pair))


def _form(farm: WebFarm, caller: Caller, shown: Mapping[str, str], job: JobResult | None = None, flaw: str = "") -> Any:
    """``shown``: what its fields have; as it was sent, where it has a ``flaw``."""
    given = shown if flaw else None
    pairs, schedulers = sorted(farm.settings.known_pairs()), sorted(SCHEDULERS)
    empty = dict.fromkeys([*USUAL, "refiner", "pair"], "")
    return page("try.html", caller, 422 if flaw else 200, shown={**empty, **shown}, flaw=flaw, pairs=pairs,
                schedulers=schedulers, job=job, carried=carried(job.spec, given) if job else ())  # fmt: skip


def _submitted(farm: WebFarm, caller: Caller, fields: Mapping[str, str], job: JobResult | None) -> int:
    row = row_of(fields, job.spec if job else None)
    words = _CONTROL.sub(" ", fields.get("prompt", "")).split()  # which no batch is called by
    name = f"try: {cut(' '.join(words), _NAME_CHARACTERS)}"
    asked = hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()
    priority = min(_HIGHEST, caller.rights.max_priority)
    options: SubmitOptions = {"name": name, "pair": fields.get("pair") or None, "priority": priority}
    rows = read_rows([row], read_options(farm.settings, {}))
    return Intake(farm, Asked(caller, None, asked)).accept(rows, batch_request(farm.settings, None, options)).batch_id
