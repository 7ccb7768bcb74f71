"""Submitting over HTTP: rows as JSON, or a manifest as it is. The rest is as in `nightshift submit`."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from http import HTTPStatus
from typing import Annotated, Any, Final

from anyio.to_thread import run_sync
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.background import BackgroundTask

from producer.manifests.manifest import BadRow, ReadOptions, Row, read_manifest, read_rows
from producer.manifests.manifest_format import without_suffixes
from producer.manifests.manifest_source import ManifestSource, place_name
from producer.submitting.batch_name import name_flaw
from producer.submitting.submit_options import SubmitOptions, batch_request, given_options, read_options
from producer.web.api.orders import RowsOrder, Treatment, UploadOrder
from producer.web.api.shapes import AcceptedShape
from producer.web.body import Upload, body_in_memory, uploaded
from producer.web.callers import Caller, Farm, Submitter
from producer.web.drawing_time import DrawingTime
from producer.web.farm import WebFarm
from producer.web.intake import Asked, Intake, begin
from producer.web.problems import problems
from schemas.errors import ManifestError, RequestError
from schemas.printable import printable

router = APIRouter(tags=["submit"], responses=problems(400, 401, 403, 409, 413, 415, 421, 422, 429, 503))

_JSON: Final = "application/json"
_ROWS_BODY: Final = {"required": True, "content": {_JSON: {"schema": {"$ref": "#/components/schemas/RowsOrder"}}}}
_BYTES: Final = {"schema": {"type": "string", "format": "binary"}}
_UPLOAD_BODY: Final = {"required": True, "content": {"application/octet-stream": _BYTES}}
_KEY_HELP: Final = "The same key and the same request again: the same answer, and no second batch."
Key = Annotated[str | None, Header(alias="Idempotency-Key", pattern=r"^[!-~]{1,200}$", description=_KEY_HELP)]


@router.post("/batches", status_code=201, response_model=AcceptedShape, openapi_extra={"requestBody": _ROWS_BODY})
async def submit_rows(request: Request, farm: Farm, caller: Submitter, key: Key = None) -> Any:
    """Puts rows into the ledger. Workers that run start on them at once. A bad row refuses them all, unless
    `skip_invalid`."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _JSON:
        raise RequestError(415, "media_type", f"rows come as {_JSON}; a manifest goes to /api/v1/manifests")
    content = await body_in_memory(request, farm.settings.web_body_bytes)
    return _answer(farm, await run_sync(_take_rows, farm, caller, key, content))


@router.post("/manifests", status_code=201, response_model=AcceptedShape,
             openapi_extra={"requestBody": _UPLOAD_BODY})  # fmt: skip
async def submit_manifest(
    request: Request, farm: Farm, caller: Submitter, order: Annotated[UploadOrder, Query()], key: Key = None
) -> Any:
    """The same of a manifest: the body is the file as it is, TSV, CSV, JSONL, txt or Parquet, compressed or not."""
    if request.headers.get("content-type", "").lower().startswith("multipart/"):
        raise RequestError(415, "media_type", "the body is the file itself, and no form with a file in it")
    if not farm.uploading.acquire(blocking=False):
        raise RequestError(503, "busy", "other manifests are being uploaded; try again soon", 5.0)
    try:
        async with uploaded(request, order.file, farm.settings.web_upload_bytes) as upload:
            return _answer(farm, await run_sync(_take_upload, farm, caller, key, order, upload))
    finally:
        farm.uploading.release()


def _take_rows(farm: WebFarm, caller: Caller, key: str | None, content: bytes) -> AcceptedShape:
    try:
        order = RowsOrder.model_validate_json(content)
    except ValidationError as error:
        raise RequestValidationError(_in_body(error)) from None
    intake = Intake(farm, Asked(caller, key, hashlib.sha256(content).hexdigest()))
    if earlier := intake.earlier_answer():
        return earlier
    options = _options(farm, caller, order)
    rows = read_rows(order.rows, _reading(farm, options))
    return intake.accept(rows, batch_request(farm.settings, None, options))


def _take_upload(farm: WebFarm, caller: Caller, key: str | None, order: UploadOrder, upload: Upload) -> AcceptedShape:
    asked = hashlib.sha256(f"{order.model_dump_json()}\n{upload.sha256}".encode()).hexdigest()
    intake = Intake(farm, Asked(caller, key, asked))
    if earlier := intake.earlier_answer():
        return earlier
    options = _options(farm, caller, order)
    source = ManifestSource(upload.path, order.format)
    rows = _called(order.file, upload, read_manifest(source, _reading(farm, options)))
    name = order.name or _batch_name(order.file)
    return intake.accept(rows, batch_request(farm.settings, source, {**options, "name": name}))


def _options(farm: WebFarm, caller: Caller, order: Treatment) -> SubmitOptions:
    """As `Client.submit` takes them, within what the caller and the farm may."""
    options, most = given_options(order.options()), farm.settings.web_max_jobs
    max_jobs = min(options.get("max_jobs", most), most)
    return {**options, "priority": caller.priority(order.priority), "max_jobs": max_jobs}


def _reading(farm: WebFarm, options: SubmitOptions) -> ReadOptions:
    return replace(read_options(farm.settings, options), check_time=DrawingTime().check)


def _batch_name(file_name: str) -> str:
    """Of the manifest, where none is given: a file may be called anything."""
    name = printable(without_suffixes(file_name))[:200]
    return "manifest" if name_flaw(name) else name


def _called(file_name: str, upload: Upload, rows: Iterable[Row | BadRow]) -> Iterator[Row | BadRow]:
    """The rows; where something is said of the file, it is called as its sender calls it."""
    name = printable(file_name)
    try:
        for row in rows:
            yield replace(row, file=name) if isinstance(row, BadRow) else row
    except ManifestError as error:
        raise ManifestError(str(error).replace(place_name(upload.path), name)) from error


def _answer(farm: WebFarm, accepted: AcceptedShape) -> Response:
    """When the caller has it, the batch begins."""
    where = {"Location": f"/api/v1/batches/{accepted.batch_id}"}
    after = BackgroundTask(begin, farm, accepted.batch_id)
    return Response(accepted.model_dump_json(), HTTPStatus.CREATED, where, _JSON, after)


def _in_body(error: ValidationError) -> list[dict[str, Any]]:
    found = error.errors(include_url=False, include_context=False)
    return [{**item, "loc": ("body", *item["loc"])} for item in found]
