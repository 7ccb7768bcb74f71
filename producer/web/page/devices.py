"""The devices as a page: what each has in hand, how fast it is, how it is."""

from typing import Any

from fastapi import APIRouter

from producer.device_figures import device_figures
from producer.web.callers import Farm, Reader
from producer.web.page.batches import unserved
from producer.web.page.templating import page

router = APIRouter(include_in_schema=False)


@router.get("/devices")
def show_devices(farm: Farm, caller: Reader) -> Any:
    """Those that work first."""
    devices = device_figures(farm.database, farm.settings.lease_seconds)
    return page("devices.html", caller, devices=devices, unserved=unserved(farm))


@router.get("/devices/table")
def show_table(farm: Farm, caller: Reader) -> Any:
    """The part of the page that changes."""
    devices = device_figures(farm.database, farm.settings.lease_seconds)
    return page("_devices.html", caller, devices=devices, unserved=unserved(farm))
