"""The devices as a page: what each has in hand, how fast it is, how it is."""

from collections.abc import Sequence
from typing import Any, Final

from fastapi import APIRouter

from farm import draining
from producer.questions.device_figures import device_figures
from producer.web.callers import Farm, Operator, Reader, Viewer
from producer.web.farm import WebFarm
from producer.web.page.batches import unserved
from producer.web.page.forms import Fields, lead_to
from producer.web.page.templating import page
from schemas.errors import NotFoundError

router = APIRouter(include_in_schema=False)

_SHARED: Final = "devices"


@router.get("/devices")
def show_devices(farm: Farm, caller: Reader) -> Any:
    """Those that work first."""
    return page("devices.html", caller, **_told_of(farm))


@router.get("/devices/table")
def show_table(farm: Farm, caller: Viewer) -> Any:
    """The part of the page that changes: every open one asks for it at the same events."""
    return page("_devices.html", caller, **farm.shared.get(_SHARED, lambda: _told_of(farm)))


@router.post("/devices/drain")
def drain(farm: Farm, _caller: Operator, fields: Fields) -> Any:
    """The worker takes no more packs, and ends after those in its hands."""
    return _told(farm, draining.drain(farm.database, fields.get("worker", "")))


@router.post("/devices/undrain")
def undrain(farm: Farm, _caller: Operator, fields: Fields) -> Any:
    """The device gets a worker again."""
    return _told(farm, draining.stop_draining(farm.database, fields.get("worker", "")))


def _told_of(farm: WebFarm) -> dict[str, Any]:
    return {"devices": device_figures(farm.database, farm.settings.lease_seconds), "unserved": unserved(farm)}


def _told(farm: WebFarm, workers: Sequence[Any]) -> Any:
    farm.shared.forget(_SHARED)
    if not workers:
        raise NotFoundError("no such worker is there any more")
    return lead_to("/devices")
