"""Manifests: files of prompts, read as a stream, whatever their format and wherever they lie (``manifest_rows``).

A column is a field of the spec when its name is one (without regard to case, and with ``_``, space and ``-`` alike) or
when ``--map`` says so; the refiner's are dotted (``refiner.start``). Every other column is meta.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Final

from producer.axes import Axes, AxisValue, filled, without_replaced
from producer.columns import Cells, Columns, field_mapping, field_values, spec_fields
from producer.defaults import set_option, with_defaults
from producer.inputs import NO_INPUTS, Inputs, ResolvedInputs
from producer.manifest_rows import manifest_parts
from producer.manifest_source import ManifestSource
from producer.repeats import Repeats
from producer.rows import BadRow, Row, finding, shown_value
from producer.seeds import derived_seed
from schemas.digest import canonical_json
from schemas.errors import FieldProblem, ManifestError, SpecError
from schemas.fields import text_flaw
from schemas.printable import printable, printable_start
from schemas.spec import JobSpec

__all__ = ["BadRow", "ReadOptions", "Row", "read_manifest"]

#: More than there are fields. Only meta can have more, where many of a row's columns are wrong in one way.
_MAX_FINDINGS: Final = 50
_REASON_CHARACTERS: Final = 1_000


@dataclass(frozen=True)
class ReadOptions:
    """How a manifest is read.

    columns: column → field, for columns that are not named after their field (``--map Caption=prompt``).
    defaults: field → value as text (``--set width=512``, ``--set refiner.mode=off``), for every row that has no value
        of its own: an empty cell, a JSON null and a missing key are none. A row's own value wins, and a default gives
        way where the row's own choices leave it nothing to say (``with_defaults``).
    limit: read so many rows, good or bad, and no more.
    base_seed: goes into the seed of every row that has none.
    inputs: finds the pictures and LoRAs that rows name; without it rows name them by sha256 alone.
    axes: makes a grid of every row: a row to render for each cell, all with the seed that the row has without them.
    max_jobs: a grid of more cells in all is refused.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, str] = field(default_factory=dict)
    limit: int | None = None
    base_seed: int = 0
    inputs: Inputs | None = None
    axes: Axes | None = None
    max_jobs: int | None = None


def read_manifest(manifest: Path | ManifestSource, options: ReadOptions) -> Iterator[Row | BadRow]:
    """The rows of the manifest, in its order. A bad row does not end the reading.

    Raises:
        ManifestError: when the first row is asked for, if a file cannot be read, has no rows or no prompt, or
            an option is wrong; later, if a file is not whole, or ``columns`` names one that no row of a JSONL file has.
        StorageError: the temporary folder is full, the image store does not take an input, or what the manifest's URL
            names does not answer.
    """
    source = ManifestSource.of(manifest)
    if options.limit is not None and options.limit < 1:
        raise ManifestError(f"--limit {options.limit}: the limit is 1 or more")
    mapping, defaults = field_mapping(options.columns), _checked(field_values(options.defaults), options.inputs)
    given = defaults.keys() | (_checked_axes(options.axes, defaults, options.inputs).fields if options.axes else ())
    parts = manifest_parts(source, mapping, needs_prompt="prompt" not in given)
    with closing(parts), Repeats() as repeats:
        made = (map(_RowMaker(part.file, defaults, options, repeats).rows, part.cells) for part in parts)
        cells = islice(chain.from_iterable(made), options.limit)
        first = next(cells, None)
        if first is None:
            raise ManifestError(f"{source.name} has no rows")
        rows = chain.from_iterable(chain([first], cells))
        yield from _bounded(rows, options.axes, options.max_jobs) if options.axes and options.max_jobs else rows


def _bounded(rows: Iterator[Row | BadRow], axes: Axes, max_jobs: int) -> Iterator[Row | BadRow]:
    num = 0
    for row in rows:
        num += isinstance(row, Row)
        if num > max_jobs:
            fit = f"each row has {axes.num_cells}, so the rows that fit are {max_jobs // axes.num_cells:,}"
            raise ManifestError(
                f"the grids have more than {max_jobs:,} cells ({fit}): take fewer with --limit, or raise --max-jobs"
            )
        yield row


def _checked(defaults: dict[str, object], inputs: Inputs | None) -> dict[str, object]:
    """The defaults, if a spec could have them: a wrong one is wrong once, and not in every row."""
    if problems := _flaws(defaults, inputs):
        wrong = (f"{_as_set(problem, defaults)}: {printable(problem.reason)}" for problem in problems)
        raise ManifestError("; ".join(wrong))
    return defaults


def _as_set(problem: FieldProblem, defaults: Mapping[str, object]) -> str:
    """The default that is wrong; all of its group, where it is the group. Else what the defaults imply."""
    group = f"{problem.field}."
    given = [set_option(*item) for item in defaults.items() if item[0] == problem.field or item[0].startswith(group)]
    return " and ".join(given) or set_option(problem.field, problem.value)


def _checked_axes(axes: Axes, defaults: dict[str, object], inputs: Inputs | None) -> Axes:
    """The same for each of their values, beside the defaults."""
    for axis in filter(None, (axes.x, axes.y)):
        for value in axis.values:
            if problems := _flaws(filled({}, (value,), defaults), inputs):
                used = without_replaced(defaults, (value,))
                wrong = (finding(*_located(problem, _NO_COLUMNS, used, (value,))) for problem in problems)
                raise ManifestError("; ".join(wrong))
    return axes


def _flaws(given: dict[str, object], inputs: Inputs | None) -> list[FieldProblem]:
    """Why no spec could have these values. What is wrong only beside a field that the rows may give is left to them."""
    _, problems = _spec_of({"prompt": "any", "seed": 0, **given}, inputs)
    return [problem for problem in problems if set(problem.beside) <= given.keys()]


def _spec_of(values: Mapping[str, object], inputs: Inputs | None) -> tuple[JobSpec | None, list[FieldProblem]]:
    """The spec of a row's values, or None and what is wrong with them."""
    resolved = _resolved(values, inputs)
    try:
        spec = JobSpec.parse(spec_fields({**values, **resolved.fields}))
    except SpecError as error:
        return None, [*map(resolved.explained, error.problems), *resolved.problems]
    problems = [*resolved.problems, *resolved.problems_of(spec)]
    return (None if problems else spec), problems


def _resolved(values: Mapping[str, object], inputs: Inputs | None) -> ResolvedInputs:
    if inputs is None or ("init_image" not in values and "loras" not in values):
        return NO_INPUTS
    return inputs.resolve(values)


class _RowMaker:
    """Makes rows of cells: checks the spec, gives it a seed, counts those before it."""

    def __init__(self, file: str, defaults: dict[str, object], options: ReadOptions, repeats: Repeats) -> None:
        self._file = file
        self._defaults = defaults
        self._base_seed = options.base_seed
        self._inputs = options.inputs
        self._axes = options.axes
        self._repeats = repeats

    def rows(self, cells: Cells | BadRow) -> Iterable[Row | BadRow]:
        """The row; with axes, a row for each cell of its grid."""
        if isinstance(cells, BadRow):
            return (cells,)
        own = _own(cells)
        return self._grid(cells, own, self._axes) if self._axes else (self._row(cells, self._filled(own)),)

    def _filled(self, own: dict[str, object], axes_cell: tuple[AxisValue, ...] = ()) -> dict[str, object]:
        return filled(own, axes_cell, self._defaults) if axes_cell else with_defaults(own, self._defaults)

    def _grid(self, cells: Cells, own: dict[str, object], axes: Axes) -> Iterable[Row | BadRow]:
        """Every cell; or, if one is bad, what is wrong, each thing once."""
        own = self._with_seed(own, axes)
        rows = [self._row(cells, self._filled(own, cell), cell) for cell in axes.cells]
        bad = {str(row): row for row in rows if isinstance(row, BadRow)}
        return bad.values() or rows

    def _with_seed(self, own: dict[str, object], axes: Axes) -> dict[str, object]:
        """One seed for all cells: the row's without the axes; else, where the row is no spec, its first cell's."""
        if "seed" in own or "seed" in self._defaults or "seed" in axes.fields:
            return own
        for content in (self._filled(own), self._filled(own, next(axes.cells))):
            spec, _ = _spec_of({**content, "seed": 0}, self._inputs)
            if spec is not None:
                return {**own, "seed": self._seeded(spec).seed}
        return own  # the cells will say what is wrong

    def _row(self, cells: Cells, values: dict[str, object], axes_cell: tuple[AxisValue, ...] = ()) -> Row | BadRow:
        unseeded = "seed" not in values
        meta, problems = _meta(cells)
        spec, flaws = _spec_of({**values, "seed": 0} if unseeded else values, self._inputs)
        if spec is None or problems:
            return self._bad(cells, [*flaws, *problems], axes_cell)
        if unseeded:
            spec = self._seeded(spec)
        # Counted with its seed in any case: another row may give the very seed that this one derived.
        return Row(cells.line, spec, self._repeats.num_before(spec.canonical), meta)

    def _seeded(self, spec: JobSpec) -> JobSpec:
        """The spec with the seed derived from its content and from how many unseeded rows had the same before it."""
        content = spec.content_without_seed
        num_before = self._repeats.num_before(canonical_json(content))
        return spec.model_copy(update={"seed": derived_seed(self._base_seed, content, num_before)})

    def _bad(self, cells: Cells, problems: list[FieldProblem], axes_cell: tuple[AxisValue, ...]) -> BadRow:
        own = _own(cells)
        defaults = {field: value for field, value in self._defaults.items() if field not in own}
        used = without_replaced(defaults, axes_cell)
        found = [_located(problem, cells.columns, used, axes_cell) for problem in problems[:_MAX_FINDINGS]]
        (column, value, reason), others = found[0], [finding(*other) for other in found[1:]]
        more = [f"and {len(problems) - _MAX_FINDINGS} more"] if len(problems) > _MAX_FINDINGS else []
        return BadRow(self._file, cells.line, column, value, "; ".join([reason, *others, *more]))


_NO_COLUMNS: Final = Columns((), (), ())


def _own(cells: Cells) -> dict[str, object]:
    """The values of the row itself, field by field."""
    return {name: cells.values[i] for i, name in cells.columns.fields if cells.values[i] is not None}


def _located(
    problem: FieldProblem, columns: Columns, defaults: Mapping[str, object], axes_cell: tuple[AxisValue, ...]
) -> tuple[str | None, str | None, str]:
    """Column, value and reason. A field that no column gives is named as the column that there should be.

    What an axis or a default gives is named so, and so are those beside which a field is wrong. ``defaults``: those
    that the row and the axes leave standing.
    """
    if own := next((axis for axis in axes_cell if problem.field in axis.fields), None):
        return None, None, f"axis {own}: {printable_start(problem.reason, _REASON_CHARACTERS)}"
    beside = [f"axis {axis}" for axis in axes_cell if not axis.replaced.isdisjoint(problem.beside)]
    beside += [set_option(field, defaults[field]) for field in problem.beside if field in defaults]
    reason = printable_start(problem.reason, _REASON_CHARACTERS)
    reason = f"{reason} ({', '.join(beside)})" if beside else reason
    if problem.field in defaults:
        return None, None, f"{set_option(problem.field, defaults[problem.field])}: {reason}"
    value = None if problem.value is None else shown_value(problem.value)
    return columns.name_of(problem.field) or problem.field, value, reason


def _meta(cells: Cells) -> tuple[dict[str, str], list[FieldProblem]]:
    meta: dict[str, str] = {}
    problems = []
    for place, name in cells.columns.meta:
        value = cells.values[place]
        if value is None:
            continue
        try:
            meta[name] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, allow_nan=False)
        except ValueError:
            problems.append(FieldProblem(name, value, "is not a finite number"))
            continue
        if flaw := text_flaw(meta[name]):
            problems.append(FieldProblem(name, value, flaw))
    return meta, problems
