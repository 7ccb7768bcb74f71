"""What the doctor asks this machine: GPUs, memory, disk, the pair's files. Each returns a sentence, or raises one."""

import os
import shutil
from pathlib import Path
from typing import Final

from farm.gpus import GpuReading, Gpus, read_gpus
from farm.image_store import local_path
from schemas.errors import NightshiftError, StorageError
from schemas.pair import SYNTHETIC, ModelPair, ModelSource
from schemas.settings import Settings

_GIB: Final = 1024**3
_LOW_DISK_BYTES: Final = 5 * _GIB
_LOW_MEMORY_BYTES: Final = _GIB // 4
#: what SDXL with its refiner takes in float16 (docs/operations.md)
_PAIR_BYTES: Final = 11_600_000_000


def gpus(settings: Settings) -> str:
    """Without a driver a machine renders on its CPU, unless the settings name GPUs."""
    found = read_gpus()
    if found.driver_version is None:
        if settings.devices not in ("auto", "cpu"):
            raise NightshiftError(f"devices is {settings.devices}, and no NVIDIA driver is here; install one")
        return "no NVIDIA driver here; a worker on this machine would render on the CPU"
    if not found.readings:
        raise NightshiftError(f"driver {found.driver_version} sees no GPU; nvidia-smi may say why")
    return _told(found)


def _told(found: Gpus) -> str:
    small = [gpu for gpu in found.readings if gpu.memory_total_bytes < _PAIR_BYTES]
    advice = '; SDXL with its refiner does not fit there whole: set offload = "auto" in the pair' if small else ""
    return f"driver {found.driver_version}; " + ", ".join(map(_gpu, found.readings)) + advice


def _gpu(gpu: GpuReading) -> str:
    used, total = gpu.memory_used_bytes / _GIB, gpu.memory_total_bytes / _GIB
    heat = "" if gpu.temperature_celsius is None else f", {gpu.temperature_celsius} °C"
    return f"{gpu.index}: {gpu.name}, {used:.1f} of {total:.0f} GiB in use{heat}"


def memory(_: Settings) -> str:
    """Of the machine, not of its GPUs."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    available = _available_bytes()
    said = f"{available / _GIB:.1f} of {total / _GIB:.1f} GiB available"
    if available < _LOW_MEMORY_BYTES:
        raise NightshiftError(f"only {said}; the kernel will end processes: end something yourself, or add memory")
    return said


def _available_bytes() -> int:
    """What the kernel would give to a process that asks; where only Linux tells, what is free."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields["MemAvailable"].split()[0]) * 1024


def disk(settings: Settings) -> str:
    folder = local_path(settings.images_url)
    if folder is None:
        return "images go elsewhere"
    try:
        free = shutil.disk_usage(_existing(folder)).free
    except OSError as error:
        raise StorageError(f"cannot tell how much is free at {folder}: {error.strerror}") from error
    if free < _LOW_DISK_BYTES:
        raise NightshiftError(f"{free / _GIB:.1f} GiB free at {folder}; make room, an image of 1024² takes 1.5 MB")
    return f"{free / _GIB:.0f} GiB free at {folder}"


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def model_files(settings: Settings) -> str:
    """The pair's, where a worker would look for them. A machine without a GPU may do without."""
    pair = settings.model_pair()
    where = [_place(source) for source in _sources(pair)]
    missing = [path for path in where if path is not None and not path.exists()]
    if missing and read_gpus().readings:
        raise NightshiftError(f"pair {pair.name}: {missing[0]} is missing here; copy it there, or name its place")
    names = " and ".join(source.source for source in _sources(pair))
    return f"{pair.name}: {names}{_not_here(pair, missing)}"


def _not_here(pair: ModelPair, missing: list[Path]) -> str:
    if missing:
        return f"; {missing[0]} is not on this machine, which only its workers need"
    absent = [source.source for source in _sources(pair) if _is_of_hub(source) and not _cached(source).exists()]
    return f"; a worker here would fetch {' and '.join(absent)} from the hub first" if absent else ""


def _sources(pair: ModelPair) -> list[ModelSource]:
    return [source for source in (pair.base, pair.refiner, pair.vae) if source is not None]


def _place(source: ModelSource) -> Path | None:
    """Of a file or folder; None for what is made here or comes from the hub."""
    return Path(source.source) if source.source.startswith("/") else None


def _is_of_hub(source: ModelSource) -> bool:
    return _place(source) is None and not source.source.startswith(SYNTHETIC)


def _cached(source: ModelSource) -> Path:
    """Where the hub's client keeps it (huggingface_hub's HF_HUB_CACHE, HF_HOME)."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    cache = Path(os.environ.get("HF_HUB_CACHE", str(home / "hub")))
    return cache / f"models--{source.source.replace('/', '--')}"
