"""Which devices this host has, found without torch: the supervisor must not touch a device."""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace

from schemas.errors import SettingsError


@dataclass(frozen=True)
class Device:
    """``name`` as torch knows it inside the process; ``index`` of the GPU on the host, or of one of the CPU's several
    processes."""

    name: str
    index: str | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What the worker process's environment needs so that it sees this device alone."""
        if self.name == "cpu":
            return {}
        # nvidia-smi counts by bus; CUDA would count by speed.
        return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": self.index}

    def __str__(self) -> str:
        return self.name if self.index is None else f"{self.name}:{self.index}"


def numbered(found: Sequence[Device]) -> list[Device]:
    """The same devices, each with a name of its own: of several CPUs the first is ``cpu:0``."""
    cpus = [place for place, device in enumerate(found) if device == Device("cpu")]
    if len(cpus) < 2:
        return list(found)
    return [replace(device, index=str(cpus.index(i))) if i in cpus else device for i, device in enumerate(found)]


def devices(setting: str) -> list[Device]:
    """The devices that ``NIGHTSHIFT_DEVICES`` asks for: ``auto``, ``cpu``, or GPU indices such as ``0,1``.

    ``cpu,cpu`` is two processes on the CPU.

    Raises:
        SettingsError: the setting is none of these, or names a GPU that is not there.
    """
    wanted = [index.strip() for index in setting.split(",")]
    if set(wanted) == {"cpu"}:
        return [Device("cpu")] * len(wanted)
    found = _gpu_indices()
    if setting == "auto":
        return [Device("cuda", index) for index in found] or [Device("cpu")]
    if not all(index.isascii() and index.isdigit() for index in wanted):
        raise SettingsError(f"devices is auto, cpu, or GPU indices such as 0,1; not {setting!r}")
    if len(set(wanted)) < len(wanted):
        raise SettingsError(f"devices: {setting!r} names a GPU twice; a second worker on it only takes its memory")
    missing = [index for index in wanted if index not in found]
    if missing:
        raise SettingsError(
            f"devices: GPU {', '.join(missing)} is not here; this host has {', '.join(found) or 'none'}"
        )
    return [Device("cuda", index) for index in wanted]


def _gpu_indices() -> list[str]:
    """What ``CUDA_VISIBLE_DEVICES`` leaves, else what the driver lists."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [index.strip() for index in visible.split(",") if index.strip() not in ("", "-1")]
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except FileNotFoundError:
        return []  # no driver, so no GPU
    except subprocess.TimeoutExpired:
        raise SettingsError("nvidia-smi does not answer; mend the driver, or say --devices cpu") from None
    if listed.returncode != 0:  # a broken driver must not mean a night on the CPU
        said = " ".join((listed.stdout + listed.stderr).split())
        raise SettingsError(f"nvidia-smi fails: {said}; mend the driver, or say --devices cpu")
    return listed.stdout.split()
