"""How this host's NVIDIA GPUs are, by the driver's own library (NVML). Touches no device's memory, needs no torch."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from schemas.errors import NightshiftError


@dataclass(frozen=True)
class GpuReading:
    """One GPU now. ``index``: as nvidia-smi counts; what a GPU does not measure is None."""

    index: int
    name: str
    memory_used_bytes: int
    memory_total_bytes: int
    #: share of the last moments in which a kernel ran
    utilisation: float | None
    temperature_celsius: int | None
    power_watts: float | None
    uuid: str = ""

    def is_named(self, name: str) -> bool:
        """By what ``CUDA_VISIBLE_DEVICES`` may say: its index, or how its UUID begins."""
        return name == str(self.index) or (name.startswith("GPU-") and self.uuid.startswith(name))


@dataclass(frozen=True)
class Gpus:
    """What the driver says. ``driver_version``: None where there is none, and so no GPU."""

    driver_version: str | None
    readings: tuple[GpuReading, ...] = ()


def read_gpus() -> Gpus:
    """Asks the driver, which takes a few milliseconds.

    Raises:
        NightshiftError: there is a driver, and it fails.
    """
    # a tenth of a second, for the few who ask
    import pynvml  # noqa: PLC0415

    try:
        with _nvml(pynvml):
            count = pynvml.nvmlDeviceGetCount()
            return Gpus(pynvml.nvmlSystemGetDriverVersion(), tuple(_reading(pynvml, index) for index in range(count)))
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


def _reading(pynvml: Any, index: int) -> GpuReading:
    device = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(device)

    def measured(question: Any, *arguments: Any) -> Any:
        try:
            return question(device, *arguments)
        except pynvml.NVMLError_NotSupported:
            return None

    utilisation = measured(pynvml.nvmlDeviceGetUtilizationRates)
    milliwatts = measured(pynvml.nvmlDeviceGetPowerUsage)
    return GpuReading(
        index=index,
        name=pynvml.nvmlDeviceGetName(device),
        memory_used_bytes=memory.used,
        memory_total_bytes=memory.total,
        utilisation=None if utilisation is None else utilisation.gpu / 100,
        temperature_celsius=measured(pynvml.nvmlDeviceGetTemperature, pynvml.NVML_TEMPERATURE_GPU),
        power_watts=None if milliwatts is None else milliwatts / 1000,
        uuid=pynvml.nvmlDeviceGetUUID(device),
    )
