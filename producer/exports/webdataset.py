"""WebDataset shards in img2dataset's layout: ``00000.tar``, and beside it ``00000.parquet`` and ``00000_stats.json``.

The members of one sample stand together: ``000000012.png`` as it was stored, ``.txt`` with the caption, ``.json`` with
the whole provenance. The statistics are written last, so a shard that has them is whole.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from producer.exports.exported_fields import full_spec
from producer.exports.shards import Add, Sample, Shard, image_bytes
from producer.exports.tables import TableWriter, table_writer
from producer.exports.tally import Column
from producer.exports.tar_stream import TarStream
from producer.exports.targets import Target, put
from schemas.provenance import RECORD_VERSION

#: img2dataset's own columns; the rest of them (url, original_width, exif) are about downloads
_STATUS: Final = "success"


class Webdataset:
    """``has_splits``: each has a folder, and shards from 00000 of its own. ``environments``: digest → content."""

    holds_images = True

    def __init__(self, target: Target, columns: tuple[Column, ...], shard_size: int,
                 environments: Mapping[str, dict[str, Any]], *, has_splits: bool) -> None:  # fmt: skip
        self.shard_size: int | None = shard_size
        self._target = target
        self._columns = columns
        self._environments = environments
        self._has_splits = has_splits

    def is_whole(self, shard: Shard) -> bool:
        content = self._target.read(f"{self._stem(shard)}_stats.json")
        if content is None:
            return False
        folder, _, name = self._stem(shard).rpartition("/")
        sizes, stats = self._target.sizes(folder), json.loads(content)
        return all(sizes.get(f"{name}.{kind}") == stats[f"{kind}_bytes"] for kind in ("tar", "parquet"))

    def prepare(self, sample: Sample) -> tuple[bytes, bytes]:
        """The image and its record."""
        return image_bytes(sample), self._record(sample)

    @contextmanager
    def writing(self, shard: Shard) -> Iterator[Add]:
        stem = self._stem(shard)
        with self._target.writing(f"{stem}.tar") as stream, self._table(f"{stem}.parquet") as table:
            tar, num_samples = TarStream(stream), 0

            def add(sample: Sample, prepared: tuple[bytes, bytes]) -> None:
                nonlocal num_samples
                image, record = prepared
                tar.add(f"{sample.key}.{sample.job.suffix}", image)
                tar.add(f"{sample.key}.txt", sample.text.encode())
                tar.add(f"{sample.key}.json", record)
                table.add((sample.key, sample.text, _STATUS, None), sample)
                num_samples += 1

            yield add
            tar.finish()
        self._write_stats(stem, num_samples)

    def data_files(self, split: str) -> str:
        return f"{split}/*.tar" if self._has_splits else "*.tar"

    def _stem(self, shard: Shard) -> str:
        return f"{shard.split}/{shard.number:05}" if self._has_splits else f"{shard.number:05}"

    def _record(self, sample: Sample) -> bytes:
        job = sample.job
        record = {
            "key": sample.key,
            "caption": sample.text,
            "width": job.row.width,
            "height": job.row.height,
            "sha256": job.row.sha256,
            "job": job.name,
            "nightshift": RECORD_VERSION,
            "spec": full_spec(job.row.spec),
            "provenance": job.provenance,
            "environment": self._environments[job.row.environment_digest],
            "meta": job.meta,
        }
        return msgspec.json.encode(record)

    @contextmanager
    def _table(self, key: str) -> Iterator[TableWriter]:
        import pyarrow as pa  # noqa: PLC0415

        first = dict.fromkeys(("key", "caption", "status", "error_message"), pa.string())
        with self._target.writing(key) as stream, table_writer(stream, first, self._columns) as table:
            yield table

    def _write_stats(self, stem: str, num_samples: int) -> None:
        folder, _, name = stem.rpartition("/")
        sizes = self._target.sizes(folder)
        stats = {
            "count": num_samples, "successes": num_samples, "failed_to_download": 0, "failed_to_resize": 0,
            "status_dict": {_STATUS: num_samples}, "tar_bytes": sizes[f"{name}.tar"],
            "parquet_bytes": sizes[f"{name}.parquet"],
        }  # fmt: skip
        put(self._target, f"{stem}_stats.json", (json.dumps(stats, indent=2) + "\n").encode())
