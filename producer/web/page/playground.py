"""A prompt to try: a small form that submits one job before all others, and shows its image when it is there."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, BackgroundTasks, Query

from producer.manifests.manifest import read_rows
from producer.reports.markup import cut
from producer.submitting.submit_options import SubmitOptions, batch_request, read_options
from producer.web.callers import Caller, Farm, Reader, Submitter
from producer.web.farm import WebFarm
from producer.web.intake import Asked, Intake, begin
from producer.web.page.forms import Fields, lead_to
from producer.web.page.jobs import JobName, named_job
from producer.web.page.templating import page
from producer.web.problems import RefusedRowsError
from schemas.errors import InputError
from schemas.schedulers import SCHEDULERS, short_scheduler_name
from schemas.spec import JobSpec

router = APIRouter(include_in_schema=False)

_HIGHEST: Final = 9
_NAME_CHARACTERS: Final = 60
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
#: what the form has, and what it shows before anybody changes it
_USUAL: Final = {
    "prompt": "", "negative_prompt": "", "width": "1024", "height": "1024", "num_inference_steps": "40",
    "guidance_scale": "5.0", "scheduler": "euler", "refiner": "on", "seed": "", "pair": "",
}  # fmt: skip


@router.get("/try")
def show_form(farm: Farm, caller: Reader, job: Annotated[JobName | None, Query(alias="from")] = None) -> Any:
    """Empty, or as a job was rendered."""
    usual = {**_USUAL, "pair": farm.settings.pair}
    return _form(farm, caller, usual | (_of_job(named_job(farm, job).spec) if job else {}))


@router.post("/try")
def try_prompt(farm: Farm, caller: Submitter, fields: Fields, after: BackgroundTasks) -> Any:
    """Leads to the job, or back to the form with what is wrong."""
    try:
        batch_id = _submitted(farm, caller, fields)
    except RefusedRowsError as error:
        wrong = "; ".join(f"{one.column or 'the row'}: {one.reason}" for one in error.wrong)
        return _form(farm, caller, _USUAL | fields, wrong or str(error))
    except InputError as error:
        return _form(farm, caller, _USUAL | fields, str(error))
    after.add_task(begin, farm, batch_id)
    return lead_to(f"/batches/{batch_id}/jobs/1")


def _form(farm: WebFarm, caller: Caller, shown: Mapping[str, str], flaw: str = "") -> Any:
    pairs, schedulers = sorted(farm.settings.known_pairs()), sorted(SCHEDULERS)
    return page("try.html", caller, 422 if flaw else 200, shown=shown, flaw=flaw, pairs=pairs, schedulers=schedulers)


def _submitted(farm: WebFarm, caller: Caller, fields: Mapping[str, str]) -> int:
    row = {name: fields[name] for name in _USUAL if name not in ("refiner", "pair") and fields.get(name, "") != ""}
    if "refiner" not in fields:
        row["refiner.mode"] = "off"
    words = _CONTROL.sub(" ", fields.get("prompt", "")).split()  # which no batch is called by
    name = f"try: {cut(' '.join(words), _NAME_CHARACTERS)}"
    asked = hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()
    priority = min(_HIGHEST, caller.rights.max_priority)
    options: SubmitOptions = {"name": name, "pair": fields.get("pair") or None, "priority": priority}
    rows = read_rows([row], read_options(farm.settings, {}))
    return Intake(farm, Asked(caller, None, asked)).accept(rows, batch_request(farm.settings, None, options)).batch_id


def _of_job(spec: JobSpec) -> dict[str, str]:
    return {
        "prompt": spec.prompt,
        "negative_prompt": spec.negative_prompt or "",
        "width": str(spec.width),
        "height": str(spec.height),
        "num_inference_steps": str(spec.num_inference_steps),
        "guidance_scale": f"{spec.guidance_scale:g}",
        "scheduler": short_scheduler_name(spec.scheduler),
        "refiner": "" if spec.refiner.mode == "off" else "on",
        "seed": str(spec.seed),
    }
