"""Reads a Parquet file in a process of its own, ``python -m producer.manifests.parquet_reader``, as lines of JSON.

What is in such a file decides how much memory its reader takes: a page says itself how large it will be, one cell can
hold a gigabyte, and a dictionary repeats it for each row. So the operating system bounds this process, and whatever a
file does to it, the process that reads the lines goes on and says so. (RLIMIT_DATA: Linux keeps to it, macOS does not.)

Reads on stdin the place (JSON). Writes to stdout the columns, a line for each row, and how it ended; see
``producer.manifests.parquet_rows``, which is the other side.
"""

import json
import os
import resource
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import Any, BinaryIO, Final, cast

from producer.manifests.remote_file import opened_url
from schemas.errors import NightshiftError

MAX_MEMORY_BYTES: Final = 1 << 30

_MAX_FOOTER_BYTES: Final = 16_000_000
_MAGIC: Final = b"PAR1"
_TAIL_BYTES: Final = 8
_BATCH_ROWS: Final = 256
_BUFFER_BYTES: Final = 1 << 20
_MAX_SAID: Final = 300


class _RefusedError(Exception):
    """The file cannot be read. Its message goes on from the file's name."""


def main() -> int:
    place = json.loads(sys.stdin.readline())
    os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"  # the others take more than they use, which would count
    import pyarrow as pa  # noqa: PLC0415  only this process has it

    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    bound = MAX_MEMORY_BYTES if most == resource.RLIM_INFINITY else min(MAX_MEMORY_BYTES, most)
    resource.setrlimit(resource.RLIMIT_DATA, (bound, most))
    cast(TextIOWrapper, sys.stdout).reconfigure(encoding="utf-8", newline="\n")
    end = {"ended": "whole"}
    try:
        with _opened(place) as stream:
            _check_ends(stream)
            for line in _lines(stream):
                sys.stdout.write(f"{line}\n")
    except _RefusedError as error:
        end = {"ended": "refused", "said": str(error)}
    except NightshiftError as error:
        end = {"ended": error.code, "said": str(error)}
    except MemoryError:
        end = {"ended": "memory"}
    except (pa.ArrowException, OSError, ValueError, RecursionError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0][:_MAX_SAID]
        end = {"ended": "refused", "said": f"cannot be read as Parquet: {said}"}
    sys.stdout.write(f"#{json.dumps(end)}\n")
    sys.stdout.flush()
    return 0


@contextmanager
def _opened(place: dict[str, str]) -> Iterator[BinaryIO]:
    if "url" in place:
        with opened_url(place["url"], by_parts=True) as stream:
            yield stream
    else:
        with open(place["path"], "rb") as stream:
            yield stream


def _check_ends(stream: BinaryIO) -> None:
    """Whether it begins and ends as Parquet does, and how much its end takes, before anything else looks at it."""
    head = stream.read(len(_MAGIC))
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - _TAIL_BYTES))
    tail = stream.read(_TAIL_BYTES)
    stream.seek(0)
    if head != _MAGIC:
        raise _RefusedError("is no Parquet file, whatever it is called" if size else "is empty")
    if size < 2 * _TAIL_BYTES or tail[4:] != _MAGIC:
        raise _RefusedError("is not whole: Parquet ends with a footer, and this does not; was it copied to its end?")
    footer = int.from_bytes(tail[:4], "little")
    if footer > min(_MAX_FOOTER_BYTES, size):
        raise _RefusedError(f"says that its footer has {footer:,} bytes; {_MAX_FOOTER_BYTES:,} are the most")


def _lines(stream: BinaryIO) -> Iterator[str]:
    """The columns, then each row. One page of each column is in memory at a time, and one batch of rows."""
    from pyarrow import parquet  # noqa: PLC0415

    file = parquet.ParquetFile(stream, buffer_size=_BUFFER_BYTES, pre_buffer=False)
    fields = list(file.schema_arrow)
    yield json.dumps([[field.name, _kind(field.type)] for field in fields])
    read = [field.name for field in fields if _kind(field.type) != "bytes"]
    chosen = None if len(read) == len(fields) else read
    for batch in file.iter_batches(_BATCH_ROWS, columns=chosen, use_threads=False) if read else ():
        columns = [_as_text(column) for column in batch.columns]
        yield from _rows(batch.schema.names, columns)


def _kind(kind: Any) -> Any:
    """``one`` value, ``bytes``, ``many`` values, or the names within a struct."""
    from pyarrow import types  # noqa: PLC0415

    if types.is_dictionary(kind):
        return _kind(kind.value_type)
    if _holds_bytes(kind):
        return "bytes"
    if types.is_struct(kind):
        return [kind.field(n).name for n in range(kind.num_fields)]
    return "many" if types.is_nested(kind) else "one"


def _holds_bytes(kind: Any) -> bool:
    from pyarrow import types  # noqa: PLC0415

    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return True
    return any(_holds_bytes(kind.field(n).type) for n in range(kind.num_fields)) if types.is_nested(kind) else False


def _as_text(column: Any) -> Any:
    """Times as text; Python's own have no nanoseconds."""
    from pyarrow import types  # noqa: PLC0415

    kind = column.type
    is_time = types.is_timestamp(kind) or types.is_date(kind) or types.is_time(kind)
    return column.cast("string") if is_time else column


def _rows(names: list[str], columns: list[Any]) -> Iterable[str]:
    try:
        values = [column.to_pylist() for column in columns]
    except (UnicodeDecodeError, ValueError):
        return [_row_alone(names, columns, n) for n in range(len(columns[0]))]
    return [_as_json(names, row) for row in zip(*values, strict=True)]


def _row_alone(names: list[str], columns: list[Any], place: int) -> str:
    """A row among which one cannot be read: the line of it, or what is wrong with it after ``!``."""
    row = []
    for name, column in zip(names, columns, strict=True):
        try:
            row.append(column[place].as_py())
        except UnicodeDecodeError as error:
            byte = f"0x{error.object[error.start]:02x} at byte {error.start + 1}"
            return f"!has in {name[:_MAX_SAID]!r} what is not UTF-8 ({byte})"
        except ValueError as error:
            return f"!has in {name[:_MAX_SAID]!r} what cannot be read: {str(error)[:_MAX_SAID]!r}"
    return _as_json(names, row)


def _as_json(names: list[str], row: Iterable[Any]) -> str:
    return json.dumps(
        {name: _without_null(value) for name, value in zip(names, row, strict=True)}, ensure_ascii=False, default=str
    )


def _without_null(value: Any) -> Any:
    """A struct has every key in every row; those that a row leaves open are null, and JSONL would not have them."""
    if isinstance(value, dict):
        return {key: _without_null(inner) for key, inner in value.items() if inner is not None}
    return [_without_null(inner) for inner in value] if isinstance(value, list) else value


if __name__ == "__main__":
    sys.exit(main())
