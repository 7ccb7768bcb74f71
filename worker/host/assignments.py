"""Which device of a host pins which pair: ``--pair sdxl:0,1 --pair juggernaut:2``."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from schemas.errors import SettingsError
from schemas.settings import Settings
from worker.host.devices import Device, devices, numbered


@dataclass(frozen=True)
class Assignment:
    """One worker process is to be kept on this device, with this pair."""

    device: Device
    pair: str


def assignments(settings: Settings, pairs: Sequence[str], chosen: str | None) -> list[Assignment]:
    """One for each device.

    pairs: each ``NAME``, or ``NAME:DEVICES`` where several share the host; none: the setting's.
    chosen: devices of a pair that names none; None: the setting's.

    Raises:
        SettingsError: two pairs are to have one GPU, or it is not said which devices a pair has.
        PairError: there is no such pair.
    """
    if len(pairs) > 1 and not all(":" in pair for pair in pairs):
        raise SettingsError(
            f"where a host has several pairs, each names its devices: --pair {_plain(pairs[0])}:0,1"
            f" --pair {_plain(pairs[1])}:2"
        )
    if chosen is not None and any(":" in pair for pair in pairs):
        raise SettingsError("devices are named once: behind the pair, or by --devices")
    given = [_assigned(settings, pair, chosen) for pair in pairs or [settings.pair]]
    together = [assignment for some in given for assignment in some]
    _require_one_each([one.device for one in together])
    placed = numbered([one.device for one in together])
    return [Assignment(device, one.pair) for device, one in zip(placed, together, strict=True)]


def _assigned(settings: Settings, pair: str, chosen: str | None) -> list[Assignment]:
    name, colon, own = pair.partition(":")
    known = settings.model_pair(name).name
    return [Assignment(device, known) for device in devices(own if colon else chosen or settings.devices)]


def _plain(pair: str) -> str:
    return pair.partition(":")[0]


def _require_one_each(placed: Sequence[Device]) -> None:
    twice = [device for device, count in Counter(placed).items() if count > 1 and device.index is not None]
    if twice:
        raise SettingsError(f"{twice[0]} is to have two pairs; a GPU pins one")
