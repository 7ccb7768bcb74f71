"""TSV and CSV: a header line, then a row for each record. Quotes are text in TSV; in CSV the csv module reads them."""

import csv
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from producer.manifests.columns import Cells, Columns, columns_of, normal_name, quoted
from producer.manifests.lines import MAX_LINE_BYTES, Line
from producer.manifests.rows import BadRow, shown_value
from schemas.errors import ManifestError
from schemas.fields import text_flaw
from schemas.printable import printable

_MAX_ROW_LINES: Final = 1_000  # bounds what is read again after a wrong quote
#: Characters, after all wrong quotes together: a file may be made so that each of its lines is read a thousand times.
_MAX_READ_AGAIN: Final = 100_000_000
_COST_OF_A_LINE: Final = 100  # of any length, as if it had so many characters more
_OPEN_QUOTE: Final = "has a quote that is never closed"
_CARRIAGE_RETURN: Final = "has a carriage return inside; lines end in \\n or \\r\\n"


class Record(NamedTuple):
    """Cells of a table, from one line or several. ``flaw`` as in Line."""

    line: int
    last_line: int
    cells: list[str]
    flaw: str

    @property
    def blank(self) -> bool:
        return not self.flaw and len(self.cells) < 2 and not "".join(self.cells).strip()


class _OpenQuoteError(Exception):
    """A quoted cell goes on to the end of the file, or for longer than a row may be."""


def tsv_records(lines: Iterator[Line]) -> Iterator[Record]:
    """A record for each line."""
    for number, text, flaw in lines:
        row = text.rstrip("\r\n")
        yield Record(number, number, row.split("\t"), flaw or (_CARRIAGE_RETURN if "\r" in row else ""))


def csv_records(file: str, lines: Iterator[Line]) -> Iterator[Record]:
    """A record for each row of the csv module. After wrong quotes, reading goes on at the row's second line.

    Strict, because otherwise a quote that is not closed swallows the rows up to the next quote, and nobody is told.

    Raises:
        ManifestError: so many quotes are wrong that reading on would take for ever.
    """
    feed = _CsvFeed(lines)
    reader = csv.reader(feed, strict=True)
    while True:
        feed.start_row()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except (csv.Error, _OpenQuoteError) as error:
            yield Record(feed.row[0].number, feed.row[0].number, [], _csv_flaw(error))
            feed.read_again()
            if feed.num_read_again > _MAX_READ_AGAIN:
                where = f"{file}:{feed.row[0].number}"
                raise ManifestError(
                    f"{where}: so many quotes up to here are not closed that this is no CSV file"
                ) from None
        else:
            flaw = next((line.flaw for line in feed.row if line.flaw), "")
            yield Record(feed.row[0].number, feed.row[-1].number, cells, flaw)


class _CsvFeed:
    """Gives lines to a csv.reader, and remembers those of the row that it is reading."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self._again: deque[Line] = deque()
        self.row: list[Line] = []
        self._num_characters = 0
        self.num_read_again = 0

    def start_row(self) -> None:
        self.row.clear()
        self._num_characters = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines, None)
        if line is None and self.row:  # the reader asks for more in the middle of a row only inside quotes
            raise _OpenQuoteError
        if line is None:
            raise StopIteration
        self.row.append(line)
        self._num_characters += len(line.text)
        if self._num_characters > MAX_LINE_BYTES or len(self.row) > _MAX_ROW_LINES:
            raise _OpenQuoteError
        return line.text

    def read_again(self) -> None:
        """The lines of this row but its first are given once more."""
        self._again.extendleft(reversed(self.row[1:]))
        self.num_read_again += sum(len(line.text) + _COST_OF_A_LINE for line in self.row[1:])


def _csv_flaw(error: Exception) -> str:
    if isinstance(error, _OpenQuoteError):
        return _OPEN_QUOTE
    if "field limit" in str(error):
        return f"{_OPEN_QUOTE}, or a cell of more than {csv.field_size_limit()} characters"
    if "expected after" in str(error):
        return "has text after a closing quote (is a quote before it not closed? inside quotes a quote is doubled)"
    return _CARRIAGE_RETURN if "new-line character" in str(error) else f"is not CSV: {error}"


def table_rows(
    file: str, records: Iterator[Record], mapping: Mapping[str, str], *, needs_prompt: bool
) -> Iterator[Cells | BadRow]:
    """The rows under the header. Blank lines are skipped; an empty cell is None. ``file``: its name, printable.

    Raises:
        ManifestError: no header, or one that cannot be used.
    """
    filled = (record for record in records if not record.blank)
    header = next(filled, None)
    if header is None:
        raise ManifestError(f"{file} is empty; its first line should name the columns")
    if header.flaw:
        raise ManifestError(f"{file}:{header.line}: the header {header.flaw}")
    names = [name.strip() for name in header.cells]
    columns = checked_columns(file, names, mapping, line=header.line, needs_prompt=needs_prompt)
    for record in filled:
        yield _row(file, record, columns)


def checked_columns(
    file: str, names: Sequence[str], mapping: Mapping[str, str], *, needs_prompt: bool, line: int | None = None
) -> Columns:
    """The columns of a file that names them once; ``line``: where. Raises ManifestError where they cannot be used."""
    known = {normal_name(name) for name in names}
    for column, field in mapping.items():
        if column not in known:
            wanted = printable(column)
            raise ManifestError(f'--map {wanted}={field}: {file} has no column "{wanted}"; it has {quoted(names)}')
    try:
        columns = columns_of(names, mapping)
    except ManifestError as error:
        where = file if line is None else f"{file}:{line}"
        raise ManifestError(f"{where}: {error}") from None
    if needs_prompt and columns.name_of("prompt") is None:
        raise ManifestError(
            f"{file} has no prompt column; it has {quoted(columns.names)}; {_what_to_do(columns.names)}"
        )
    return columns


def _what_to_do(names: Sequence[str]) -> str:
    """Where no column is the prompt."""
    if len(names) == 1 and ";" in names[0]:  # as spreadsheets write it where a comma stands in numbers
        return "its columns seem to have semicolons between them; save it with commas, or as TSV"
    return "say which is the prompt: --map COLUMN=prompt"


def _row(file: str, record: Record, columns: Columns) -> Cells | BadRow:
    if record.flaw:
        return _flawed(file, record, columns)
    if len(record.cells) != len(columns.names):
        return BadRow(file, record.line, None, None, _wrong_count(record, columns))
    return Cells(record.line, columns, [cell if cell.strip() else None for cell in record.cells])


def _flawed(file: str, record: Record, columns: Columns) -> BadRow:
    for name, cell in zip(columns.names, record.cells, strict=False):
        if text_flaw(cell):
            return BadRow(file, record.line, name, shown_value(cell), record.flaw)
    return BadRow(file, record.line, None, None, f"the line {record.flaw}")


def _wrong_count(record: Record, columns: Columns) -> str:
    num, wanted = len(record.cells), len(columns.names)
    reason = f"the row has {num} column{'s' if num > 1 else ''}, the header has {wanted}"
    if record.last_line > record.line:
        reason += f" (the row goes on to line {record.last_line}: is a quote not closed?)"
    return reason
