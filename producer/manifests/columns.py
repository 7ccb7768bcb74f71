"""Columns of a manifest: which of them are fields of a spec, and which are meta."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from msgspec import Struct

from producer.manifests.foreign_names import called_elsewhere, squashed
from producer.manifests.rows import shown_value
from schemas.buckets import ASPECT_RATIO
from schemas.errors import ManifestError
from schemas.fields import text_flaw
from schemas.output import Output
from schemas.printable import printable
from schemas.refiner import Refiner
from schemas.schedulers import OPTION_NAMES
from schemas.spec import JobSpec

#: field of the spec that is an object → its own fields
GROUPS: Final = MappingProxyType(
    {
        "refiner": tuple(Refiner.model_fields),
        "scheduler_options": OPTION_NAMES,
        "output": tuple(Output.model_fields),
    }
)
MAX_COLUMNS: Final = 1_000
_SHOWN_NAMES: Final = 30

#: every name that a column, --map and --set may give a value to
FIELDS: Final = (
    *(name for name in JobSpec.model_fields if name not in GROUPS),
    ASPECT_RATIO,
    *(f"{group}.{name}" for group, names in GROUPS.items() for name in names),
)
#: the column that says how many images a row is, and is no field of a spec
COUNT: Final = "count"
#: Runware's names for fields of its refiner object
_RUNWARE: Final = MappingProxyType(
    {"refiner.startstep": "refiner.start_step", "refiner.startsteppercentage": "refiner.start_percent"}
)
_RUNWARE_META: Final = "refiner.model"  # the pair decides which refiner it is
#: ``guidanceScale`` and its like
_SQUASHED: Final = MappingProxyType({squashed(field): field for field in (*FIELDS, COUNT)})


class Columns(NamedTuple):
    """The columns of a row. ``fields`` and ``meta``: the place in the row, and the field's or the column's name.
    ``meant``: columns of meta whose names stand for a field elsewhere, which no column gives: column, field."""

    names: tuple[str, ...]
    fields: tuple[tuple[int, str], ...]
    meta: tuple[tuple[int, str], ...]
    meant: tuple[tuple[str, str], ...] = ()

    def name_of(self, field: str) -> str | None:
        """The column that gives this field, as the file spells it."""
        return next((self.names[place] for place, found in self.fields if found == field), None)


class Cells(Struct, frozen=True, gc=False):
    """A row as its file has it. ``values`` stand in the order of ``columns.names``; None is an absent value."""

    line: int
    columns: Columns
    values: Sequence[object]


def normal_name(name: str) -> str:
    """``Negative Prompt``, ``negative-prompt`` and ``negative_prompt`` are one name."""
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def field_mapping(mapping: Mapping[str, str]) -> Mapping[str, str]:
    """``--map`` with normal names: column → field.

    Raises:
        ManifestError: no such field, or a column mapped twice.
    """
    found: dict[str, str] = {}
    for column, field in mapping.items():
        given = printable(f"--map {column}={field}")
        if normal_name(field) not in (*FIELDS, COUNT):
            raise ManifestError(f"{given}: there is no field {field!r}; {known_fields(field)}, and {COUNT}")
        if normal_name(column) in found:
            raise ManifestError(f"{given}: this column is mapped twice")
        found[normal_name(column)] = normal_name(field)
    return MappingProxyType(found)


def field_values(values: Mapping[str, str]) -> dict[str, object]:
    """``--set`` with normal names: field → text. The values themselves are not checked.

    Raises:
        ManifestError: no such field, a field set twice, or an empty value.
    """
    found: dict[str, object] = {}
    for key, value in values.items():
        field, given = normal_name(key), printable(f"--set {key}={value}")
        if field not in FIELDS:
            raise ManifestError(f"{given}: there is no field {key!r}; {known_fields(key)}")
        if field in found:
            raise ManifestError(f"{given}: this field is set twice")
        if not value.strip():
            raise ManifestError(f"{given.rstrip()}: an empty value sets nothing; leave it out")
        found[field] = value
    return found


def columns_of(names: Sequence[str], mapping: Mapping[str, str]) -> Columns:
    """``mapping``: normal column name → field, for columns that are not named after their field.

    Raises:
        ManifestError: a column has no usable name, or two are read as the same. The sentence does not name the file.
    """
    if len(names) > MAX_COLUMNS:
        raise ManifestError(f"there are {len(names)} columns; {MAX_COLUMNS} are the most")
    fields: list[tuple[int, str]] = []
    meta: list[tuple[int, str]] = []
    taken: dict[str, str] = {}
    for place, name in enumerate(names):
        normal = normal_name(name)
        _check_name(normal, place, known=normal in mapping)
        field = mapping.get(normal, _RUNWARE.get(normal, normal))
        if field in taken:
            raise ManifestError(f"columns {quoted([taken[field], name])} are both read as {shown_value(field)}")
        taken[field] = name
        if field in FIELDS or field == COUNT:
            fields.append((place, field))
        else:
            meta.append((place, name.strip()))
    meant = tuple((name, other) for _, name in meta if (other := _meant(name)) is not None and other not in taken)
    return Columns(tuple(names), tuple(fields), tuple(meta), meant)


def _meant(name: str) -> str | None:
    return called_elsewhere(name) or _SQUASHED.get(squashed(name))


def _check_name(normal: str, place: int, *, known: bool) -> None:
    if not normal:
        raise ManifestError(f"column {place + 1} has no name")
    if flaw := text_flaw(normal):
        raise ManifestError(f"the name of column {place + 1} {flaw}")
    group, _, _ = normal.partition(".")
    if group not in GROUPS or known or normal in FIELDS or normal in (*_RUNWARE, _RUNWARE_META):
        return
    fields = ", ".join(f"{group}.{name}" for name in GROUPS[group])
    raise ManifestError(f'column "{shown_value(normal)}" is no field of {_SAID[group]}; they are {fields}')


_SAID: Final = MappingProxyType(
    {"refiner": "the refiner", "scheduler_options": "the scheduler's options", "output": "the output"}
)


def spec_fields(values: Mapping[str, object]) -> dict[str, Any]:
    """What ``JobSpec.parse`` takes: ``refiner.start`` and its like go into one ``refiner``."""
    found: dict[str, Any] = {}
    for field, value in values.items():
        group, dot, name = field.partition(".")
        if dot:
            found.setdefault(group, {})[name] = value
        else:
            found[field] = value
    return found


def quoted(names: Iterable[str]) -> str:
    """``"Prompt", "Width"``, printable, and of many the first ones."""
    found = list(names)
    shown = [f'"{shown_value(name)}"' for name in found[:_SHOWN_NAMES]]
    more = [f"and {len(found) - _SHOWN_NAMES} more"] if len(found) > _SHOWN_NAMES else []
    return ", ".join([*shown, *more])


def known_fields(name: str) -> str:
    """``is width meant? fields are prompt, ...``, the end of a sentence about one that is not."""
    normal = normal_name(name)
    within = [field for field in FIELDS if len(normal) > 2 and normal in field]
    near = [*dict.fromkeys([*within, *get_close_matches(normal, FIELDS)])][:3]
    meant = f"is {' or '.join(near)} meant? " if near else ""
    return f"{meant}fields are {', '.join(FIELDS)}"
