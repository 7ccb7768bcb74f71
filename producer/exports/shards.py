"""Samples, the shards that they are written in, and what a format has to do with them."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from producer.exports.done_jobs import DoneJob
from producer.exports.exported_fields import META, Value
from producer.exports.image_files import Flaw, recorded_bytes
from producer.exports.tally import Column


@dataclass(frozen=True)
class Sample:
    """One image with its caption. ``place``: in its split, from 0. ``key``: what its files are called."""

    split: str
    place: int
    key: str
    job: DoneJob
    text: str


@dataclass(frozen=True)
class Shard:
    """Consecutive samples of one split. ``number``: from 0. ``num_shards``: of the split."""

    split: str
    number: int
    num_samples: int
    num_shards: int


Add = Callable[[Sample, Any], None]


class ShardWriter(Protocol):
    """A format. Shards are written one after the other, each by its samples in order."""

    #: samples in a shard; None: a split is one
    shard_size: int | None
    #: whether ``prepare`` gives an image's bytes; else samples take no memory, however many are prepared ahead
    holds_images: bool

    def is_whole(self, shard: Shard) -> bool:
        """Whether an earlier run has written it already."""

    def prepare(self, sample: Sample) -> Any:
        """What may be done beside other samples' work, in a thread: the image is read, or placed."""

    def writing(self, shard: Shard) -> AbstractContextManager[Add]:
        """``add`` takes each sample with what ``prepare`` gave for it. At the block's end the shard is there."""

    def data_files(self, split: str) -> str:
        """The split's files as Hugging Face finds them below the dataset's folder."""


def values_in(columns: Sequence[Column]) -> Callable[[Sample], list[Value]]:
    """What gives a sample's values in these columns, those of meta last. Made once for all samples."""
    names = [column.name for column in columns if not column.name.startswith(META)]
    of_meta = [column.name.removeprefix(META) for column in columns[len(names) :]]

    def values(sample: Sample) -> list[Value]:
        own, meta = sample.job.values, sample.job.meta
        return [*map(own.__getitem__, names), *map(meta.get, of_meta)]

    return values


def image_bytes(sample: Sample) -> bytes:
    """The image as it was stored. Raises StorageError where it is no longer the recorded one."""
    content = recorded_bytes(sample.job)
    if isinstance(content, Flaw):
        raise content.error_of(sample.job)
    return content


def key_of(place: int, shard_size: int) -> str:
    """The shard's number in five digits and the place in it, as img2dataset calls its samples: ``000010002``."""
    number, inner = divmod(place, shard_size)
    return f"{number:05}{inner:0{len(str(shard_size - 1))}}"
