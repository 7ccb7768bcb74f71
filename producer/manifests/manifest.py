"""Manifests: files of prompts, read as a stream, whatever their format and wherever they lie (``manifest_rows``).

A column is a field of the spec when its name is one (without regard to case, and with ``_``, space and ``-`` alike) or
when ``--map`` says so; the refiner's are dotted (``refiner.start``). Every other column is meta.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Final

from producer.dispatching.firing_rows import with_placeholders
from producer.expanding.axes import Axes, AxisValue, filled, without_replaced
from producer.expanding.drawings import Drawings, any_time
from producer.expanding.expanded_rows import ExpandedRows
from producer.expanding.expansion import NO_EXPANSION, Expansion
from producer.expanding.given_wildcards import GivenWildcards
from producer.expanding.job_bound import JobBound
from producer.expanding.repeats import Repeats
from producer.expanding.seeds import seed_digest, seed_of
from producer.expanding.sweeps import Sweep
from producer.expanding.templates import Templates
from producer.expanding.wildcards import Wildcards
from producer.manifests.columns import Cells, Columns, field_mapping, field_values, quoted
from producer.manifests.defaults import set_option
from producer.manifests.inputs import Inputs
from producer.manifests.kinds import CheckedRow, Kinds
from producer.manifests.manifest_rows import Part, manifest_parts
from producer.manifests.manifest_source import ManifestSource
from producer.manifests.mappings import ROWS, mapping_rows
from producer.manifests.rows import BadRow, Row, finding, shown_value
from schemas.digest import sha256_hex
from schemas.errors import FieldProblem, ManifestError
from schemas.fields import text_flaw
from schemas.printable import printable, printable_start

__all__ = ["BadRow", "ReadOptions", "Row", "read_manifest", "read_rows"]

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
    expansion: what else makes several rows of one: templates, sweeps, ``count``.
    max_jobs: more rows to render in all are refused; None: any number.
    placeholders: what stands for ``{date}`` and its like in the cells; none are replaced where there are no values.
    check_time: called for each row whose templates are read, and before each text that is drawn from them; it raises
        where a reading takes too long.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, str] = field(default_factory=dict)
    limit: int | None = None
    base_seed: int = 0
    inputs: Inputs | None = None
    axes: Axes | None = None
    expansion: Expansion = NO_EXPANSION
    max_jobs: int | None = None
    placeholders: Mapping[str, str] = field(default_factory=dict)
    check_time: Callable[[], None] = any_time


def read_manifest(manifest: Path | ManifestSource, options: ReadOptions) -> Iterator[Row | BadRow]:
    """The rows of the manifest, in its order. A bad row does not end the reading.

    Raises:
        ManifestError: when the first row is asked for, if a file cannot be read, has no rows or no prompt, or
            an option is wrong; later, if a file is not whole, or ``columns`` names one that no row of a JSONL file has.
        StorageError: the temporary folder is full, the image store does not take an input, or what the manifest's URL
            names does not answer.
    """
    source = ManifestSource.of(manifest)
    mapping, defaults, given = _checked_options(options)
    with closing(manifest_parts(source, mapping, needs_prompt="prompt" not in given)) as parts:
        yield from _made(source.name, parts, defaults, options)


def read_rows(items: Iterable[object], options: ReadOptions) -> Iterator[Row | BadRow]:
    """The same of what a program gives: mappings with the values of a JSONL file, and ``JobSpec``s. Raises likewise."""
    mapping, defaults, _ = _checked_options(options)
    part = Part(ROWS, mapping_rows(items, mapping, takes_specs=not defaults))
    yield from _made(ROWS, [part], defaults, options)


def _checked_options(options: ReadOptions) -> tuple[Mapping[str, str], dict[str, object], set[str]]:
    """Columns, defaults, and the fields that defaults and axes give. Raises ManifestError."""
    if options.limit is not None and options.limit < 1:
        raise ManifestError(f"--limit {options.limit}: the limit is 1 or more")
    kinds = Kinds(options.inputs)
    mapping, defaults = field_mapping(options.columns), _checked(field_values(options.defaults), kinds)
    axes = options.axes or options.expansion.sweep
    fields = _checked_axes(axes, defaults, kinds).fields if axes else ()
    return mapping, defaults, {*defaults, *fields}


def _made(
    name: str, parts: Iterable[Part], defaults: dict[str, object], options: ReadOptions
) -> Iterator[Row | BadRow]:
    with Repeats() as repeats:
        expanded = _expanded_rows(options, defaults, repeats)

        def of_part(part: Part) -> Iterator[Iterable[Row | BadRow]]:
            maker = _RowMaker(part.file, defaults, options, repeats, expanded)
            return map(maker.rows, with_placeholders(part.cells, options.placeholders))

        made = islice(chain.from_iterable(map(of_part, parts)), options.limit)
        first = next(made, None)
        if first is None:
            raise ManifestError(f"{name} has no rows")
        yield from chain.from_iterable(chain([first], made))
        expanded.end()


def _expanded_rows(options: ReadOptions, defaults: dict[str, object], repeats: Repeats) -> ExpandedRows:
    expansion, given = options.expansion, options.expansion.wildcards
    templates = Templates(given if isinstance(given, GivenWildcards) else Wildcards(given))
    drawings = Drawings(expansion.templates, templates, options.base_seed, repeats, options.check_time)
    if problems := drawings.flaws(defaults):
        wrong = (f"{_as_set(problem, defaults)}: {printable(problem.reason)}" for problem in problems)
        raise ManifestError("; ".join(wrong))
    return ExpandedRows(expansion, options.axes, defaults, drawings, JobBound(options.max_jobs))


def _checked(defaults: dict[str, object], kinds: Kinds) -> dict[str, object]:
    """The defaults, if a spec could have them: a wrong one is wrong once, and not in every row."""
    if problems := kinds.flaws(defaults):
        wrong = (f"{_as_set(problem, defaults)}: {printable(problem.reason)}" for problem in problems)
        raise ManifestError("; ".join(wrong))
    return defaults


def _as_set(problem: FieldProblem, defaults: Mapping[str, object]) -> str:
    """The default that is wrong; all of its group, where it is the group. Else what the defaults imply."""
    group = f"{problem.field}."
    given = [set_option(*item) for item in defaults.items() if item[0] == problem.field or item[0].startswith(group)]
    return " and ".join(given) or set_option(problem.field, problem.value)


def _checked_axes(axes: Axes | Sweep, defaults: dict[str, object], kinds: Kinds) -> Axes | Sweep:
    """The same for each of their values, beside the defaults."""
    for axis in axes.each:
        for value in axis.values:
            if problems := kinds.flaws(filled({}, (value,), defaults)):
                used = without_replaced(defaults, (value,))
                wrong = (finding(*_located(problem, _NO_COLUMNS, used, (value,))) for problem in problems)
                raise ManifestError("; ".join(wrong))
    return axes


class _RowMaker:
    """Makes rows of cells: checks the spec, gives it a seed, counts those before it."""

    def __init__(self, file: str, defaults: dict[str, object], options: ReadOptions, repeats: Repeats,
                 expanded: ExpandedRows) -> None:  # fmt: skip
        self._file = file
        self._defaults = defaults
        self._base_seed = options.base_seed
        self._kinds = Kinds(options.inputs)
        self._repeats = repeats
        self._expanded = expanded

    def rows(self, cells: Cells | BadRow) -> Iterable[Row | BadRow]:
        """The row, or all that it is expanded to."""
        return (cells,) if isinstance(cells, BadRow) else self._expanded.rows(cells, _own(cells), self)

    def row(self, cells: Cells, values: dict[str, object], axes_cell: tuple[AxisValue, ...]) -> Row | BadRow:
        """The row with these values."""
        meta, problems = _meta(cells)
        checked = self._kinds.checked(values)
        if not isinstance(checked, CheckedRow) or problems:
            flaws = [] if isinstance(checked, CheckedRow) else checked
            return self.bad(cells, [*flaws, *problems], axes_cell)
        seed = self._derived_seed(checked) if checked.seed is None else checked.seed
        written = checked.kind.written(checked.prompt, seed)
        # Counted with its seed in any case: another row may give the very seed that this one derived.
        return Row(cells.line, written, self._repeats.num_before(written.digest), meta, cells.columns.meant)

    def seed(self, values: dict[str, object]) -> int | None:
        """The seed of the next row with these values; None if they are no spec."""
        checked = self._kinds.checked(values)
        return self._derived_seed(checked) if isinstance(checked, CheckedRow) else None

    def _derived_seed(self, row: CheckedRow) -> int:
        """From the row's content, and from how many unseeded rows had the same before it."""
        kind, prompt = row.kind, row.prompt
        picture = kind.picture(prompt)
        first = seed_digest(self._base_seed, picture, 0)  # which names the spec as well, if it is all picture
        num_before = self._repeats.num_before(sha256_hex(kind.without_seed(prompt)) if kind.has_output else first)
        return seed_of(seed_digest(self._base_seed, picture, num_before) if num_before else first)

    def bad(self, cells: Cells, problems: Sequence[FieldProblem], axes_cell: tuple[AxisValue, ...]) -> BadRow:
        """What is wrong with a row."""
        own = _own(cells)
        defaults = {field: value for field, value in self._defaults.items() if field not in own}
        used = without_replaced(defaults, axes_cell)
        problems = [_with_names(problem, cells.columns) for problem in problems]
        found = [_located(problem, cells.columns, used, axes_cell) for problem in problems[:_MAX_FINDINGS]]
        (column, value, reason), others = found[0], [finding(*other) for other in found[1:]]
        more = [f"and {len(problems) - _MAX_FINDINGS} more"] if len(problems) > _MAX_FINDINGS else []
        return BadRow(self._file, cells.line, column, value, "; ".join([reason, *others, *more]))


_NO_COLUMNS: Final = Columns((), (), ())


def _own(cells: Cells) -> dict[str, object]:
    """The values of the row itself, field by field."""
    values = cells.values
    return {name: value for place, name in cells.columns.fields if (value := values[place]) is not None}


def _with_names(problem: FieldProblem, columns: Columns) -> FieldProblem:
    """A prompt that is missing, beside the columns that there are: one of them may be meant. Only JSONL's rows differ
    in theirs."""
    if (problem.field, problem.reason) != ("prompt", "is missing") or columns.name_of("prompt") or not columns.names:
        return problem
    return replace(problem, reason=f"is missing; the row has {quoted(columns.names)}")


def _located(
    problem: FieldProblem, columns: Columns, defaults: Mapping[str, object], axes_cell: tuple[AxisValue, ...]
) -> tuple[str | None, str | None, str]:
    """Column, value and reason. A field that no column gives is named as the column that there should be.

    What an axis or a default gives is named so, and so are those beside which a field is wrong. ``defaults``: those
    that the row and the axes leave standing.
    """
    if own := next((axis for axis in axes_cell if problem.field in axis.fields), None):
        return None, None, f"{own.named}: {printable_start(problem.reason, _REASON_CHARACTERS)}"
    beside = [axis.named for axis in axes_cell if not axis.replaced.isdisjoint(problem.beside)]
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
