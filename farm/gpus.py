"""How this host's NVIDIA GPUs are, by the driver's own library (NVML). Touches no device's memory, needs no torch.

A GPU that is divided (MIG) is told as a whole, and each of its instances after it: an instance has a memory of its own,
but NVML measures no utilisation of either while a GPU is divided, and heat and power of the whole alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from schemas.errors import NightshiftError

#: by which UUIDs begin, of a GPU and of an instance of one
_UUIDS: Final = ("GPU-", "MIG-")


@dataclass(frozen=True)
class GpuReading:
    """One GPU now, or one instance of it. ``index``: as nvidia-smi counts, ``0:2`` for an instance of GPU 0.

    What a GPU does not measure is None; of its memory so on those that share the machine's.
    """

    index: str
    name: str
    memory_used_bytes: int | None
    memory_total_bytes: int | None
    #: share of the last moments in which a kernel ran
    utilisation: float | None
    temperature_celsius: int | None
    power_watts: float | None
    uuid: str = ""

    def is_named(self, name: str) -> bool:
        """By what ``CUDA_VISIBLE_DEVICES`` may say: its index, or how its UUID begins."""
        return name == self.index or (name.startswith(_UUIDS) and self.uuid.startswith(name))


@dataclass(frozen=True)
class Gpus:
    """What the driver says. ``driver_version``: None where there is none, and so no GPU. ``failed``: index → why, of
    each that the driver knows and that does not answer."""

    driver_version: str | None
    readings: tuple[GpuReading, ...] = ()
    failed: dict[str, str] = field(default_factory=dict)


def read_gpus() -> Gpus:
    """Asks the driver, which takes a few milliseconds.

    Raises:
        NightshiftError: there is a driver, and it fails.
    """
    # a tenth of a second, for the few who ask
    import pynvml  # noqa: PLC0415

    try:
        with _nvml(pynvml):
            return _gpus(pynvml)
    except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded):
        return Gpus(None)
    except pynvml.NVMLError as error:
        raise NightshiftError(f"the NVIDIA driver does not answer: {error}; nvidia-smi may say more") from error


@contextmanager
def _nvml(pynvml: Any) -> Iterator[None]:
    pynvml.nvmlInit()
    try:
        yield
    finally:
        pynvml.nvmlShutdown()


def _gpus(pynvml: Any) -> Gpus:
    """One that has fallen off its bus takes none of the others along."""
    readings: list[GpuReading] = []
    failed: dict[str, str] = {}
    for number in range(pynvml.nvmlDeviceGetCount()):
        try:
            device = pynvml.nvmlDeviceGetHandleByIndex(number)
            readings += [_reading(pynvml, str(number), device), *_instances(pynvml, number, device)]
        except pynvml.NVMLError as error:
            failed[str(number)] = str(error)
    return Gpus(pynvml.nvmlSystemGetDriverVersion(), tuple(readings), failed)


def _instances(pynvml: Any, number: int, device: Any) -> Iterator[GpuReading]:
    """Their numbers may have gaps."""
    for place in range(_measured(pynvml, pynvml.nvmlDeviceGetMaxMigDeviceCount, device) or 0):
        try:
            instance = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(device, place)
        except pynvml.NVMLError_NotFound:
            continue
        yield _reading(pynvml, f"{number}:{place}", instance)


def _measured(pynvml: Any, question: Any, *arguments: Any) -> Any:
    """None for what this GPU, its driver, or our rights in a container do not give. An instance is asked as a GPU is,
    and some questions take none."""
    try:
        return question(*arguments)
    except (
        pynvml.NVMLError_NotSupported,
        pynvml.NVMLError_NoPermission,
        pynvml.NVMLError_InvalidArgument,
        pynvml.NVMLError_FunctionNotFound,
    ):
        return None


def _reading(pynvml: Any, index: str, device: Any) -> GpuReading:
    memory = _measured(pynvml, pynvml.nvmlDeviceGetMemoryInfo, device)
    utilisation = _measured(pynvml, pynvml.nvmlDeviceGetUtilizationRates, device)
    milliwatts = _measured(pynvml, pynvml.nvmlDeviceGetPowerUsage, device)
    return GpuReading(
        index=index,
        name=pynvml.nvmlDeviceGetName(device),
        memory_used_bytes=memory and memory.used,
        memory_total_bytes=memory and memory.total,
        utilisation=None if utilisation is None else utilisation.gpu / 100,
        temperature_celsius=_measured(pynvml, pynvml.nvmlDeviceGetTemperature, device, pynvml.NVML_TEMPERATURE_GPU),
        power_watts=None if milliwatts is None else milliwatts / 1000,
        uuid=pynvml.nvmlDeviceGetUUID(device),
    )
