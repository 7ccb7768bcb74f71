"""How much space a batch's images will take, and how much there is. Reads the free space of a local image store."""

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from farm.image_store import local_path
from producer.submitting.measurements import FileKind
from producer.submitting.survey import RowKind

#: (format, lossless) → bytes for each pixel of a photograph-like picture: an estimate, until images were recorded
_BYTES_PER_PIXEL: Final[Mapping[tuple[str, bool], float]] = MappingProxyType(
    {("png", True): 1.6, ("webp", True): 1.2, ("webp", False): 0.25, ("jpeg", False): 0.5}
)


@dataclass(frozen=True)
class DiskNeed:
    """``num_estimated``: of the files, those of a size and format that was not recorded yet. ``free_bytes``: None where
    the store is none on this machine's disk."""

    num_bytes: int
    num_files: int
    num_estimated: int
    free_bytes: int | None

    @property
    def fits(self) -> bool | None:
        """None where nobody knows."""
        return None if self.free_bytes is None else self.num_bytes <= self.free_bytes


def disk_need(kinds: Iterable[tuple[RowKind, int]], mean_bytes: Mapping[FileKind, float], images_url: str) -> DiskNeed:
    """``kinds``: how many files of each kind will be written. ``mean_bytes``: of the files that were recorded."""
    num_bytes, num_files, num_estimated = 0.0, 0, 0
    for kind, num in kinds:
        recorded = mean_bytes.get((kind.width, kind.height, kind.format))
        estimate = kind.width * kind.height * _BYTES_PER_PIXEL[kind.format, kind.lossless]
        num_bytes += num * (estimate if recorded is None else recorded)
        num_files += num
        num_estimated += num if recorded is None else 0
    return DiskNeed(round(num_bytes), num_files, num_estimated, _free_bytes(images_url))


def _free_bytes(images_url: str) -> int | None:
    folder = local_path(images_url)
    if folder is None:
        return None
    there = next((parent for parent in (folder, *folder.parents) if parent.is_dir()), None)
    return shutil.disk_usage(there).free if there is not None else None
