"""What the doctor asks this machine: GPUs, memory, disk, the pair's files. Each returns a sentence, or raises one."""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from farm.gpus import GpuReading, Gpus, read_gpus
from farm.image_store import local_path
from schemas.errors import NightshiftError, StorageError
from schemas.pair import SYNTHETIC, ModelPair
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
    if not found.readings and not found.failed:
        raise NightshiftError(f"driver {found.driver_version} sees no GPU; nvidia-smi may say why")
    if found.failed:
        which = ", ".join(f"GPU {index} does not answer ({reason})" for index, reason in found.failed.items())
        raise NightshiftError(f"{_told(found)}; {which}: reset it by nvidia-smi, or start this machine again")
    return _told(found)


def _told(found: Gpus) -> str:
    return "; ".join([f"driver {found.driver_version}", ", ".join(map(_gpu, found.readings)), *_advice(found.readings)])


def _advice(readings: Sequence[GpuReading]) -> Iterator[str]:
    whole = {gpu.index.partition(":")[0] for gpu in readings if ":" in gpu.index}
    if whole:
        # A worker that is given a divided GPU by its index gets its first instance, and the others lie idle.
        yield f"{' and '.join(sorted(whole))} divided (MIG): name the instances for workers in CUDA_VISIBLE_DEVICES"
    used = [gpu for gpu in readings if gpu.index not in whole]
    if any(gpu.memory_total_bytes is not None and gpu.memory_total_bytes < _PAIR_BYTES for gpu in used):
        yield 'SDXL with its refiner does not fit there whole: set offload = "auto" in the pair'


def _gpu(gpu: GpuReading) -> str:
    heat = "" if gpu.temperature_celsius is None else f", {gpu.temperature_celsius} °C"
    return f"{gpu.index}: {gpu.name}{_memory_in_use(gpu)}{heat}"


def _memory_in_use(gpu: GpuReading) -> str:
    if gpu.memory_used_bytes is None or gpu.memory_total_bytes is None:
        return ""
    return f", {gpu.memory_used_bytes / _GIB:.1f} of {gpu.memory_total_bytes / _GIB:.0f} GiB in use"


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
    """Of the images, and of the home: ledger, caches and logs. Often they are one."""
    images = local_path(settings.images_url)
    disks = dict(_disk(folder) for folder in (settings.home, images) if folder is not None)
    said = " and ".join(f"{free / _GIB:.1f} GiB free at {folder}" for folder, free in disks.values())
    if min(free for _, free in disks.values()) < _LOW_DISK_BYTES:
        raise NightshiftError(f"{said}; make room, an image of 1024² takes 1.5 MB")
    return said if images is not None else f"images go elsewhere; {said}"


def _disk(folder: Path) -> tuple[int, tuple[Path, int]]:
    """Which one it is on; the folder, and the bytes that are free there."""
    try:
        place = _existing(folder)
        return place.stat().st_dev, (folder, shutil.disk_usage(place).free)
    except OSError as error:
        raise StorageError(f"cannot tell how much is free at {folder}: {error.strerror}") from error


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def model_files(settings: Settings, name: str) -> str:
    """The pair's, where a worker would look for them. A machine without a GPU may do without."""
    pair = settings.model_pair(name)
    named = list(_sources(pair))
    missing = [source for source in named if source.startswith("/") and not Path(source).exists()]
    if missing and read_gpus().readings:
        raise NightshiftError(f"pair {pair.name}: {missing[0]} is missing here; copy it there, or name its place")
    return f"{pair.name}: {' and '.join(named)}{_not_here(named, missing)}"


def _not_here(named: list[str], missing: list[str]) -> str:
    if missing:
        return f"; {missing[0]} is not on this machine, which only its workers need"
    absent = [source for source in named if _is_of_hub(source) and not _cached(source).exists()]
    return f"; a worker here would fetch {' and '.join(absent)} from the hub first" if absent else ""


def _sources(pair: ModelPair) -> Iterator[str]:
    """Files, folders and hub ids, as the pair names them."""
    for model in (pair.base, pair.refiner, pair.vae):
        if model is not None:
            yield model.source
            yield from filter(None, [model.config])
    for inversion in pair.textual_inversions:
        yield inversion.source


def _is_of_hub(source: str) -> bool:
    return not source.startswith(("/", SYNTHETIC))


def _cached(source: str) -> Path:
    """Where the hub's client keeps it (huggingface_hub's HF_HUB_CACHE, HF_HOME)."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    cache = Path(os.environ.get("HF_HUB_CACHE", str(home / "hub")))
    return cache / f"models--{source.replace('/', '--')}"
