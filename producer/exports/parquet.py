"""Parquet with the images in it, as Hugging Face's Image feature is: ``data/train-00000-of-00012.parquet``."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from producer.exports.shards import Add, Sample, Shard, image_bytes
from producer.exports.tables import table_writer
from producer.exports.tally import Column
from producer.exports.targets import Target

_FEATURES: Final = {"image": {"_type": "Image"}, "text": {"dtype": "string", "_type": "Value"}}


class Parquet:
    holds_images = True

    def __init__(self, target: Target, columns: tuple[Column, ...], shard_size: int) -> None:
        self.shard_size: int | None = shard_size
        self._target = target
        self._columns = columns

    def is_whole(self, shard: Shard) -> bool:
        return _name(shard) in self._target.sizes("data")

    def prepare(self, sample: Sample) -> bytes:
        return image_bytes(sample)

    @contextmanager
    def writing(self, shard: Shard) -> Iterator[Add]:
        import pyarrow as pa  # noqa: PLC0415

        first = {"image": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "text": pa.string()}
        with (
            self._target.writing(f"data/{_name(shard)}") as stream,
            table_writer(stream, first, self._columns, _FEATURES) as table,
        ):

            def add(sample: Sample, content: bytes) -> None:
                image = {"bytes": content, "path": f"{sample.key}.{sample.job.suffix}"}
                table.add((image, sample.text), sample, len(content))

            yield add

    def data_files(self, split: str) -> str:
        return f"data/{split}-*.parquet"


def _name(shard: Shard) -> str:
    return f"{shard.split}-{shard.number:05}-of-{shard.num_shards:05}.parquet"
