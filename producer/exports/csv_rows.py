"""CSV without images: ``data/train-00000-of-00001.csv``, a row for each with its caption, its URI and every column."""

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager

from producer.exports.shards import Add, Sample, Shard, values_in
from producer.exports.tally import Column
from producer.exports.targets import Target


class CsvRows:
    holds_images = False

    def __init__(self, target: Target, columns: tuple[Column, ...], shard_size: int) -> None:
        self.shard_size: int | None = shard_size
        self._target = target
        self._columns = columns
        self._values = values_in(columns)

    def is_whole(self, shard: Shard) -> bool:
        return _name(shard) in self._target.sizes("data")

    def prepare(self, sample: Sample) -> None:
        """Nothing: no image is read."""

    @contextmanager
    def writing(self, shard: Shard) -> Iterator[Add]:
        with self._target.writing(f"data/{_name(shard)}") as stream:
            text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
            rows = csv.writer(text, lineterminator="\n")
            rows.writerow(["key", "text", "uri", *(column.name for column in self._columns)])

            def add(sample: Sample, _prepared: None) -> None:
                rows.writerow([sample.key, sample.text, sample.job.row.uri, *self._values(sample)])

            yield add
            text.flush()
            text.detach()  # else it would close the stream

    def data_files(self, split: str) -> str:
        return f"data/{split}-*.csv"


def _name(shard: Shard) -> str:
    return f"{shard.split}-{shard.number:05}-of-{shard.num_shards:05}.csv"
