"""Rows as Parquet, a group of them at a time, with the types that the columns have."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, Final

from producer.exports.exported_fields import Kind
from producer.exports.shards import Sample, values_in
from producer.exports.tally import Column
from schemas.errors import InputError

_ARROW: Final[dict[Kind, str]] = {"int": "int64", "float": "float64", "bool": "bool", "text": "string"}
#: of one row group, which is held in memory whole, here and by whoever reads it
_GROUP_ROWS: Final = 1_000
_GROUP_BYTES: Final = 16 << 20


def check_can_write() -> None:
    """Raises InputError where the library is missing."""
    try:
        import pyarrow  # noqa: F401, PLC0415
    except ImportError:
        raise InputError("Parquet needs the library pyarrow: pip install 'nightshift[export]'") from None


class TableWriter:
    """Collects rows into groups."""

    def __init__(self, writer: Any, schema: Any, columns: tuple[Column, ...]) -> None:
        self._writer = writer
        self._schema = schema
        self._values = values_in(columns)
        self._rows: list[list[Any]] = []
        self._num_bytes = 0

    def add(self, first: Iterable[Any], sample: Sample, num_bytes: int = 0) -> None:
        """``num_bytes``: what the row weighs beside its texts."""
        self._rows.append([*first, *self._values(sample)])
        self._num_bytes += num_bytes
        if len(self._rows) >= _GROUP_ROWS or self._num_bytes >= _GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        """The rows so far, as a group."""
        import pyarrow as pa  # noqa: PLC0415

        if not self._rows:
            return
        values = zip(*self._rows, strict=True)
        arrays = [pa.array(column, field.type) for column, field in zip(values, self._schema, strict=True)]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        self._rows, self._num_bytes = [], 0


@contextmanager
def table_writer(stream: BinaryIO, first: Mapping[str, Any], columns: tuple[Column, ...],
                 features: Mapping[str, Any] | None = None) -> Iterator[TableWriter]:  # fmt: skip
    """``first``: column → Arrow type, of what stands before the sample's own columns. ``features``: of those, where
    Hugging Face's ``datasets`` is to know them."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    own = {column.name: pa.type_for_alias(_ARROW[column.kind]) for column in columns}
    schema = pa.schema({**first, **own}.items())
    if features is not None:
        schema = schema.with_metadata(
            {"huggingface": json.dumps({"info": {"features": {**features, **_values(columns)}}})}
        )
    texts = [name for name, kind in {**first, **own}.items() if kind == pa.string()]
    packed = dict.fromkeys([*texts, *own], "snappy")  # all but images, which are packed already
    with pq.ParquetWriter(
        stream, schema, use_dictionary=texts, compression=packed, write_statistics=list(packed)
    ) as writer:
        table = TableWriter(writer, schema, columns)
        yield table
        table.flush()


def _values(columns: Iterable[Column]) -> dict[str, Any]:
    return {column.name: {"dtype": _ARROW[column.kind], "_type": "Value"} for column in columns}
