"""What an export is asked to be: everything, beside the ledger, that decides its bytes."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

from producer.exports.captions import Caption
from producer.exports.splits import WHOLE, Splits
from producer.exports.where import Where

Format = Literal["imagefolder", "webdataset", "parquet", "csv"]
FilterName = Literal["black", "blank", "duplicates"]

#: images in one shard (imagefolder: in one folder), where --shard-size says nothing
SHARD_SIZES: Final = MappingProxyType({"imagefolder": 10_000, "webdataset": 10_000, "parquet": 1_000, "csv": 1_000_000})


@dataclass(frozen=True)
class Looks:
    """Which pictures are left out for what they show. ``max_distance``: of 64 bits, in which near-duplicates differ."""

    without: tuple[FilterName, ...] = ()
    max_distance: int = 3


EVERYTHING: Final = Looks()


@dataclass(frozen=True)
class ExportOptions:
    """``batch_ids`` in the order in which they are exported. ``skip_broken``: a file that is missing or changed is left
    out, and not the end. ``copies``: of images that could be linked. ``licence``: of the dataset card; None: what the
    models' environments say."""

    batch_ids: tuple[int, ...]
    format: Format
    caption: Caption
    where: tuple[Where, ...] = ()
    splits: Splits = WHOLE
    shard_size: int = 10_000
    looks: Looks = EVERYTHING
    skip_broken: bool = False
    copies: bool = False
    licence: str | None = None

    def as_json(self) -> dict[str, Any]:
        """By the names of the command's options, for the folder's record of what it holds."""
        return {
            "batches": list(self.batch_ids),
            "format": self.format,
            "caption": [list(part) for part in self.caption.parts],
            "keep-weights": self.caption.keeps_weights,
            "where": [where.text for where in self.where],
            "split": [list(share) for share in self.splits.shares],
            "shard-size": self.shard_size,
            "without": sorted(self.looks.without),
            "max-distance": self.looks.max_distance if "duplicates" in self.looks.without else None,
            "skip-broken": self.skip_broken,
            "copy": self.copies,
            "licence": self.licence,
        }
