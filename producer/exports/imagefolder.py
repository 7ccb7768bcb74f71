"""Hugging Face's imagefolder: ``train/00000/000000012.png`` and, for each split, ``train/metadata.jsonl``.

On one file system an image is a hard link to the stored file, so that a dataset takes no second disk. Elsewhere it is a
copy. ``file_name`` and ``text`` come first in a line; a column that some rows have no value for is text in every row,
with an empty one there, because ``datasets`` takes a column's type from the first ten megabytes.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Final

import msgspec

from farm.image_store import local_path
from producer.exports.exported_fields import Value
from producer.exports.image_files import Flaw, may_be_linked
from producer.exports.shards import Add, Sample, Shard, image_bytes, values_in
from producer.exports.tally import Column
from producer.exports.targets import Target, put

_FOLDERS: Final = 8  # whose listings are remembered: threads run a little ahead into the next


class Imagefolder:
    """``folder_size``: images in one folder. ``reads_all``: what is linked or is there already is read and hashed."""

    shard_size: int | None = None
    holds_images = False

    def __init__(self, target: Target, columns: tuple[Column, ...], folder_size: int, *, copies: bool,
                 reads_all: bool) -> None:  # fmt: skip
        self._target = target
        self._columns = columns
        self._values = values_in(columns)
        self._folder_size = folder_size
        self._copies = copies
        self._reads_all = reads_all
        self._placed = lru_cache(_FOLDERS)(target.sizes)

    def is_whole(self, shard: Shard) -> bool:
        """Never: the file of lines is quickly written again, and images that are there are left as they are."""
        return False

    def file_name(self, sample: Sample) -> str:
        return f"{sample.place // self._folder_size:05}/{sample.key}.{sample.job.suffix}"

    def prepare(self, sample: Sample) -> None:
        """Puts the image where its line will say it is, unless it lies there already."""
        folder, _, name = f"{sample.split}/{self.file_name(sample)}".rpartition("/")
        if self._is_placed(sample, folder, name):
            return
        path = local_path(sample.job.row.uri)
        if self._copies or path is None or not self._link(sample, path, f"{folder}/{name}"):
            put(self._target, f"{folder}/{name}", image_bytes(sample))

    def _is_placed(self, sample: Sample, folder: str, name: str) -> bool:
        if self._placed(folder).get(name) != sample.job.row.size_bytes:
            return False
        if not self._reads_all:
            return True
        content = self._target.read(f"{folder}/{name}")
        return content is not None and hashlib.sha256(content).hexdigest() == sample.job.row.sha256

    @contextmanager
    def writing(self, shard: Shard) -> Iterator[Add]:
        with self._target.writing(f"{shard.split}/metadata.jsonl") as stream:

            def add(sample: Sample, _prepared: None) -> None:
                stream.write(msgspec.json.encode(self._line(sample)) + b"\n")

            yield add

    def data_files(self, split: str) -> str:
        return f"{split}/**"

    def _line(self, sample: Sample) -> dict[str, Value]:
        values = zip(self._columns, self._values(sample), strict=True)
        columns = {column.name: value if column.is_full else _as_text(value) for column, value in values}
        return {"file_name": self.file_name(sample), "text": sample.text, **columns}

    def _link(self, sample: Sample, path: Path, key: str) -> bool:
        if self._reads_all:
            image_bytes(sample)
        may = may_be_linked(sample.job, path)
        if isinstance(may, Flaw):
            raise may.error_of(sample.job)
        return may and self._target.link(path, key)


def _as_text(value: Value) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)
