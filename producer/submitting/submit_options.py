"""The keywords of ``Client.submit``: what `nightshift submit` has as options, with Python's types."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, Literal, TypedDict, cast

from producer.expanding.expansion import Expansion, TemplateMode
from producer.expanding.given_wildcards import GivenWildcards
from producer.expanding.sweeps import parsed_sweep
from producer.manifests.columns import GROUPS, normal_name
from producer.manifests.inputs import Inputs
from producer.manifests.manifest import ReadOptions
from producer.manifests.manifest_source import ManifestSource
from producer.manifests.rows import shown_value
from producer.submitting.batch_name import name_flaw, name_of_manifest
from producer.submitting.submit import BatchRequest
from schemas.errors import InputError
from schemas.fields import MAX_SEED
from schemas.printable import printable
from schemas.settings import Settings
from schemas.submit_order import MAX_JOBS
from schemas.timing import Timing

#: of a batch of rows, where no name is given
_NAME_OF_ROWS: Final = "rows"
_PRIORITIES: Final = range(10)
_WEIGHTS: Final = (0.001, 1000.0)


class SubmitOptions(TypedDict, total=False):
    """How a batch is read, called and treated. What is left out, or None, is as in `nightshift submit`."""

    #: which pair renders; else the one of the settings
    pair: str | None
    #: what the batch is called; else the manifest's name without its suffix, or "rows"
    name: str | None
    #: 0 to 9; 9 is rendered before 0
    priority: int
    #: the batch's share of the devices among those of its priority
    weight: float
    #: the hours in which its packs may begin: ``"mon-fri 22:00-06:00 Europe/Berlin"``
    window: str | None
    #: a time with its zone, or text as `--not-before` takes it
    not_before: datetime | str | None
    deadline: datetime | str | None
    #: field → value for the rows that do not give it: ``{"width": 512, "refiner": {"start": 0.9}}``
    defaults: Mapping[str, object]
    #: column → field, for columns that are not named after their field
    columns: Mapping[str, str]
    #: only so many rows
    limit: int | None
    #: of more jobs in all the rows are refused, before anything is enqueued
    max_jobs: int
    #: leave bad rows out, and list them in a file, instead of refusing all
    skip_invalid: bool
    #: render anew the images that exist already
    again: bool
    #: read ``{red|blue}`` and ``__wildcard__`` in prompts: draw from them, or take each of their texts
    templates: Literal["sample", "all"] | None
    #: what wildcards there are: a folder of text files, or name → values
    wildcards: Path | Mapping[str, Sequence[str]] | None
    #: fields with the values that they take, as `--sweep` has them: ``["guidance_scale=4:8:1"]``
    sweep: Sequence[str]
    #: the first values of all sweeps, then the second ones, instead of all combinations: `--zip`
    zipped: bool
    #: so many images of each row that does not say it itself
    count: int
    #: goes into every seed that is not given; else the one of the settings
    base_seed: int | None


def given_options(options: SubmitOptions) -> SubmitOptions:
    """Those that are not None. Raises TypeError for a keyword that is none, as Python does for a function's own."""
    if unknown := sorted(options.keys() - SubmitOptions.__annotations__.keys()):
        raise TypeError(f"submit() got an unexpected keyword argument {unknown[0]!r}")
    return cast(SubmitOptions, {name: value for name, value in options.items() if value is not None})


def read_options(settings: Settings, options: SubmitOptions) -> ReadOptions:
    """Raises InputError for a default that no field could have, and for templates or sweeps that cannot be."""
    return ReadOptions(
        columns=options.get("columns", {}),
        defaults=_as_text(options.get("defaults", {})),
        limit=options.get("limit"),
        base_seed=_base_seed(options.get("base_seed", settings.base_seed)),
        inputs=Inputs(settings),
        expansion=_expansion(options),
        max_jobs=options.get("max_jobs", MAX_JOBS),
    )


def batch_request(settings: Settings, manifest: ManifestSource | None, options: SubmitOptions) -> BatchRequest:
    """``manifest``: the file that the rows come from, if they do.

    Raises:
        PairError: an unknown pair.
        InputError: a name, priority, weight, window or time that is none.
    """
    skips, anew = options.get("skip_invalid", False), options.get("again", False)
    pair = settings.model_pair(options.get("pair")).name
    return BatchRequest(
        name=_name(options.get("name"), manifest),
        pair=pair,
        priority=_priority(options.get("priority", 5)),
        invalid_folder=settings.home / "invalid" if skips else None,
        weight=_weight(options.get("weight", 1.0)),
        timing=_timing(options),
        linked_in=None if anew else settings.images_url,
        definition=settings.given_definition(pair),
    )


def _expansion(options: SubmitOptions) -> Expansion:
    mode, wildcards = options.get("templates"), options.get("wildcards")
    if mode is not None and mode not in list(TemplateMode):
        raise InputError(f'templates "{shown_value(mode)}": it is sample or all')
    given = GivenWildcards(wildcards) if isinstance(wildcards, Mapping) else wildcards
    sweep = parsed_sweep(options.get("sweep", ()), zipped=options.get("zipped", False))
    return Expansion(TemplateMode(mode) if mode else None, given, sweep, options.get("count", 1))


def _base_seed(seed: int | None) -> int:
    if seed is None or not 0 <= seed <= MAX_SEED:
        raise InputError(f"base_seed {seed}: it is a number from 0 to {MAX_SEED}")
    return seed


def _name(name: str | None, manifest: ManifestSource | None) -> str:
    if name is None:
        return name_of_manifest(manifest) if manifest is not None else _NAME_OF_ROWS
    if flaw := name_flaw(name):
        raise InputError(f'name "{shown_value(name)}": {flaw}')
    return name


def _priority(priority: int) -> int:
    if priority not in _PRIORITIES:
        raise InputError(f"priority {priority}: it is a number from 0 to 9")
    return priority


def _weight(weight: float) -> float:
    least, most = _WEIGHTS
    if not least <= weight <= most:
        raise InputError(f"weight {weight}: it is a number from {least:g} to {most:g}")
    return weight


def _timing(options: SubmitOptions) -> Timing:
    times = (options.get("not_before"), options.get("deadline"))
    return Timing.parse(options.get("window"), *(at.isoformat() if isinstance(at, datetime) else at for at in times))


def _as_text(defaults: Mapping[str, object]) -> dict[str, str]:
    """As ``--set`` has them: field → text, the refiner's dotted."""
    found: dict[str, str] = {}
    for field, value in defaults.items():
        if normal_name(field) in GROUPS and isinstance(value, Mapping):
            found |= {f"{field}.{name}": _text(f"{field}.{name}", inner) for name, inner in value.items()}
        else:
            found[field] = _text(field, value)
    return found


def _text(field: str, value: object) -> str:
    match value:
        case str():
            return value
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
    raise InputError(
        f"default {printable(field)}: {shown_value(str(value))}: should be text, a number, or true or false"
    )
