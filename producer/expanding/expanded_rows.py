"""What the rows of a manifest become: each one row to render, or as many as templates, axes and ``count`` make of it.

A row is expanded as a stream, so that memory does not grow with what it becomes. Of a grid every cell is made first: it
is whole, or refused.
"""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Final, Protocol

from msgspec.structs import replace
from pydantic import TypeAdapter, ValidationError

from producer.expanding.axes import Axes, AxisValue, filled
from producer.expanding.drawings import META_PREFIX, TEMPLATE_FIELDS, Drawing, Drawings, RowValues
from producer.expanding.expansion import MAX_COUNT, Expansion
from producer.expanding.job_bound import JobBound
from producer.expanding.sweeps import Sweep
from producer.expanding.templates import is_template
from producer.manifests.columns import COUNT, Cells
from producer.manifests.defaults import with_defaults
from producer.manifests.rows import BadRow, Row
from schemas.errors import FieldProblem, SpecError
from schemas.fields import MAX_SEED, Seed

_SEED: Final = TypeAdapter(Seed)
_NO_CELL: Final[tuple[AxisValue, ...]] = ()
#: of one row's bad rows, so many are told apart
_REMEMBERED: Final = 1_000


class RowMaker(Protocol):
    """Makes one row of cells and the values of its spec. ``axes_cell``: what axes gave of them, for sentences."""

    def row(self, cells: Cells, values: dict[str, object], axes_cell: tuple[AxisValue, ...]) -> Row | BadRow: ...

    def seed(self, values: dict[str, object]) -> int | None:
        """The seed of the next row without one that has these values; None if they are no spec."""

    def bad(self, cells: Cells, problems: Sequence[FieldProblem], axes_cell: tuple[AxisValue, ...]) -> BadRow: ...


class ExpandedRows:
    """Expands the rows of a manifest, all of whose files share it. ``axes``: of a grid."""

    def __init__(self, expansion: Expansion, axes: Axes | None, defaults: Mapping[str, object], drawings: Drawings,
                 bound: JobBound) -> None:  # fmt: skip
        self._axes: Axes | Sweep | None = axes or expansion.sweep
        self._is_grid = axes is not None
        self._swept = self._axes.fields if self._axes else frozenset()
        self._count = expansion.count
        self._defaults = defaults
        self._drawings = drawings
        self._bound = bound
        self._is_plain = expansion.templates is None and self._axes is None and self._count == 1
        self._templates = {
            name: text
            for name, text in defaults.items()
            if expansion.templates and name in TEMPLATE_FIELDS and is_template(str(text))
        }

    def rows(self, cells: Cells, own: dict[str, object], maker: RowMaker) -> Iterable[Row | BadRow]:
        """The rows that the cells become, none beyond the bound. ``own``: the row's own values."""
        if self._is_plain and COUNT not in own:
            if not self._bound.takes(cells.line, 1):
                return ()
            row = maker.row(cells, with_defaults(own, self._defaults) if self._defaults else own, _NO_CELL)
            if isinstance(row, Row):
                self._bound.made()
            return (row,)
        return self._expanded(cells, own, maker)

    def end(self) -> None:
        """After the last row. Raises ManifestError where there would be more jobs than may be."""
        self._bound.check()

    def _expanded(self, cells: Cells, own: dict[str, object], maker: RowMaker) -> Iterator[Row | BadRow]:
        try:
            count = self._counted(own)
            row = RowValues(own, self._defaults, self._values(own))
            num = count * self._drawings.num(row.values) * (self._axes.num_cells if self._axes else 1)
            if not self._bound.takes(cells.line, num):
                return
            for made in _each_once(self._images(cells, row, count, maker)):
                if isinstance(made, Row):
                    self._bound.made()
                yield made
        except SpecError as error:
            yield maker.bad(cells, error.problems, _NO_CELL)

    def _images(self, cells: Cells, row: RowValues, count: int, maker: RowMaker) -> Iterator[Row | BadRow]:
        for drawing in self._drawings.drawn(row, count):
            images = (_recorded(made, cells, drawing.meta, maker) for made in self._cells(cells, drawing, maker))
            yield from _whole(images) if self._is_grid else images

    def _cells(self, cells: Cells, drawing: Drawing, maker: RowMaker) -> Iterator[Row | BadRow]:
        seeds = self._seeds(drawing, maker)
        for axes_cell in self._axes.cells if self._axes else (_NO_CELL,):
            values = self._filled(drawing, axes_cell)
            for seed in seeds:
                own_seed = {} if seed is None else {"seed": seed}
                yield maker.row(cells, values | own_seed, axes_cell)

    def _filled(self, drawing: Drawing, axes_cell: tuple[AxisValue, ...]) -> dict[str, object]:
        if axes_cell:
            return filled(drawing.own, axes_cell, drawing.defaults)
        return with_defaults(drawing.own, drawing.defaults)

    def _seeds(self, drawing: Drawing, maker: RowMaker) -> Iterable[int | None]:
        """One for each copy; None where the row gets or has its own. All cells of a row have the same seeds."""
        copies = drawing.copies
        if "seed" in self._swept:
            return (None,)
        if (given := {**drawing.defaults, **drawing.own}.get("seed")) is not None:
            first = _parsed_seed(given)
            return (None,) if first is None else range(first + copies.start, first + copies.stop)
        if self._axes is None:
            return repeat(None, len(copies))
        return self._derived_seeds(drawing, maker)

    def _derived_seeds(self, drawing: Drawing, maker: RowMaker) -> Iterable[int | None]:
        """Those that the row has without the axes; else, where it is no spec without them, in its first cell."""
        first_cell = next(iter(self._axes.cells)) if self._axes else _NO_CELL
        for values in (with_defaults(drawing.own, drawing.defaults), self._filled(drawing, first_cell)):
            seeds = (maker.seed(values) for _ in drawing.copies)
            if (first := next(seeds)) is not None:
                return array("Q", [first, *(seed for seed in seeds if seed is not None)])
        return (None,)  # the cells will say what is wrong

    def _counted(self, own: dict[str, object]) -> int:
        """How many images of the row there are; takes the column out of ``own``.

        Raises:
            SpecError: it is no such number, or the seeds would go beyond the greatest.
        """
        given = own.pop(COUNT, None)
        count = self._count if given is None else _parsed_count(given)
        if count > 1 and self._is_grid:
            raise _refused(COUNT, given, "a grid has one image for each cell; put the seeds on an axis")
        if count > 1 and "seed" in self._swept:
            raise _refused(COUNT, given, "says nothing beside --sweep seed, which says which seeds there are")
        seed = {**self._defaults, **own}.get("seed")
        first = None if seed is None or "seed" in self._swept else _parsed_seed(seed)
        if first is not None and first + count - 1 > MAX_SEED:
            raise _refused("seed", seed, f"leaves no room for {count:,} seeds in a row; the greatest is {MAX_SEED}")
        return count

    def _values(self, own: Mapping[str, object]) -> dict[str, object]:
        """What says something in the row or in any cell of it, less what the axes give."""
        values = with_defaults(own, self._defaults)
        # More cells than may be made are not looked through: there may be any number of them, for each row.
        axes = self._axes if self._axes and self._bound.has_room(self._axes.num_cells) else None
        for name, text in self._templates.items():
            if name not in values and axes and any(name in self._with(own, cell) for cell in axes.cells):
                values[name] = text
        return {name: value for name, value in values.items() if name not in self._swept}

    def _with(self, own: Mapping[str, object], axes_cell: tuple[AxisValue, ...]) -> Mapping[str, object]:
        return filled(own, axes_cell, self._defaults)


def _parsed_seed(given: object) -> int | None:
    try:
        return _SEED.validate_python(given, strict=True)
    except ValidationError:
        return None  # the spec will say what is wrong


def _parsed_count(given: object) -> int:
    text = given.strip() if isinstance(given, str) else given
    num = int(text) if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 20 else text
    if isinstance(num, bool) or not isinstance(num, int) or not 1 <= num <= MAX_COUNT:
        raise _refused(COUNT, given, f"is not a whole number from 1 to {MAX_COUNT:,}")
    return num


def _refused(field: str, value: object, reason: str) -> SpecError:
    return SpecError(f"{field}: {reason}", [FieldProblem(field, value, reason)])


def _recorded(made: Row | BadRow, cells: Cells, meta: Mapping[str, str], maker: RowMaker) -> Row | BadRow:
    """The row with what is recorded of its templates, which no column of the manifest may be called."""
    if isinstance(made, BadRow) or not meta:
        return made
    if taken := meta.keys() & made.meta.keys():
        reason = f"--templates records under names with {META_PREFIX}; call the column otherwise"
        return maker.bad(cells, [FieldProblem(name, made.meta[name], reason) for name in sorted(taken)], _NO_CELL)
    return replace(made, meta={**made.meta, **meta})


def _whole(rows: Iterable[Row | BadRow]) -> Iterable[Row | BadRow]:
    """All of them; or, if one is bad, only what is wrong."""
    made = list(rows)
    return [row for row in made if isinstance(row, BadRow)] or made


def _each_once(rows: Iterable[Row | BadRow]) -> Iterator[Row | BadRow]:
    """The rows; of bad ones that say the same, the first."""
    told: set[str] = set()
    for row in rows:
        if isinstance(row, BadRow):
            if str(row) in told:
                continue
            if len(told) < _REMEMBERED:
                told.add(str(row))
        yield row
