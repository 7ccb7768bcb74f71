"""Batches as a dataset: chosen, then written shard by shard. Killed and run again it ends with the same bytes."""

import shutil
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from typing import Any, Final

from farm.database import Database
from producer.exports.card import Card
from producer.exports.done_jobs import environment_contents, jobs_again
from producer.exports.held_plan import FORM, check_held, hold_plan
from producer.exports.options import ExportOptions
from producer.exports.reading_ahead import read_ahead
from producer.exports.selection import Choosing, Selection, Tell
from producer.exports.shards import Sample, Shard, ShardWriter, key_of
from producer.exports.tally import Column, Tally
from producer.exports.targets import Target, put

_READ_BYTES: Final = 1 << 20

Environments = dict[str, dict[str, Any]]
MakeWriter = Callable[[Target, tuple[Column, ...], Environments], ShardWriter]
Judge = Callable[[Tally, Environments], None]


@dataclass(frozen=True)
class Exported:
    """What there is now. ``splits``: images of each that was asked for, 0 too. ``num_written``: images of the shards
    that this run wrote, the others were there."""

    tally: Tally
    splits: dict[str, int]
    plan: str
    num_shards: int
    num_written: int


class Export:
    """One run. ``tell`` is called again and again."""

    def __init__(self, database: Database, options: ExportOptions, target: Target, tell: Tell) -> None:
        self._database = database
        self._options = options
        self._target = target
        self._tell = tell
        self._num_shards = 0
        self._num_there = 0
        self._num_written = 0
        self._num_images = 0

    def run(self, make_writer: MakeWriter, judge: Judge) -> Exported:
        """``judge`` sees what was chosen before anything is written, and may raise.

        Raises:
            InputError: nothing to export, a job without a caption, or the target holds something else.
            StorageError: an image is missing or not the recorded one, or the target cannot be written.
        """
        with ExitStack() as stack:
            versions = _versions(self._options)
            check_held(self._target, self._options.as_json(), versions)
            chosen = Choosing(self._database, self._options, self._tell).choose(versions, stack)
            environments = environment_contents(self._database, {digest for digest, *_ in chosen.tally.made_by})
            judge(chosen.tally, environments)
            self._num_images = chosen.tally.num_images
            stack.enter_context(self._target.held())
            hold_plan(self._target, self._plan(chosen, versions))
            writer = make_writer(self._target, chosen.tally.columns, environments)
            splits = [name for name in self._options.splits.names if chosen.tally.of_split[name]]
            for split in splits:
                self._write_split(writer, chosen, split)
            self._write_left_out(chosen)
            data_files = {split: writer.data_files(split) for split in splits}
            card = Card(self._options, chosen.tally, environments, data_files, versions, chosen.digest)
            put(self._target, "README.md", card.text().encode())
            of_split = {name: chosen.tally.of_split[name] for name in self._options.splits.names}
            return Exported(chosen.tally, of_split, chosen.digest, self._num_shards, self._num_written)

    def _plan(self, chosen: Selection, versions: dict[str, str]) -> dict[str, Any]:
        num_images, options = chosen.tally.num_images, self._options.as_json()
        return {"nightshift_export": FORM, "plan": chosen.digest, "num_images": num_images, "options": options,
                "versions": versions}  # fmt: skip

    def _write_split(self, writer: ShardWriter, chosen: Selection, split: str) -> None:
        num_samples = chosen.tally.of_split[split]
        size = writer.shard_size or num_samples
        num_shards = -(-num_samples // size)
        job_ids = chosen.job_ids(split)
        for number in range(num_shards):
            shard = Shard(split, number, min(size, num_samples - number * size), num_shards)
            ids = islice(job_ids, shard.num_samples)
            if writer.is_whole(shard):
                deque(ids, 0)
                self._num_there += shard.num_samples
            else:
                self._write_shard(writer, shard, self._samples(shard, ids, number * size))
            self._num_shards += 1

    def _write_shard(self, writer: ShardWriter, shard: Shard, samples: Iterator[Sample]) -> None:
        with writer.writing(shard) as add:
            held_bytes = _size_bytes if writer.holds_images else _nothing
            for sample, prepared in read_ahead(samples, writer.prepare, held_bytes):
                add(sample, prepared)
                self._num_written += 1
                self._tell("written", self._num_there + self._num_written, self._num_images)

    def _samples(self, shard: Shard, job_ids: Iterator[int], first: int) -> Iterator[Sample]:
        for place, job in enumerate(jobs_again(self._database, job_ids), first):
            key = key_of(place, self._options.shard_size)
            yield Sample(shard.split, place, key, job, self._options.caption.of(job.values, job.meta))

    def _write_left_out(self, chosen: Selection) -> None:
        if not chosen.tally.num_left_out:
            return
        chosen.left_out.seek(0)
        with self._target.writing("left_out.jsonl") as stream:
            shutil.copyfileobj(chosen.left_out, stream, _READ_BYTES)


def _size_bytes(sample: Sample) -> int:
    size: int = sample.job.row.size_bytes
    return size


def _nothing(_sample: Sample) -> int:
    return 0


def _versions(options: ExportOptions) -> dict[str, str]:
    """Of what decides the bytes."""
    libraries = {"webdataset": ("pyarrow",), "parquet": ("pyarrow",)}.get(options.format, ())
    eyes = ("pillow",) if options.looks.without else ()
    hashes = ("imagehash",) if "duplicates" in options.looks.without else ()
    return {name: _version(name) for name in ("nightshift", *libraries, *eyes, *hashes)}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"  # run from a checkout
