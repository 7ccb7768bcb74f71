"""The options by which `submit` and `render` read a manifest."""

import unicodedata
from dataclasses import replace
from typing import Annotated, Final

import typer

from farm.database import Database
from producer.counted_advice import CountedAdvice
from producer.inputs import Inputs
from producer.manifest import ReadOptions, read_manifest
from producer.manifest_format import FORMATS
from producer.manifest_source import ManifestSource
from producer.rows import shown_value
from producer.submit import BatchRequest, Submission, submit
from schemas.errors import InputError
from schemas.fields import text_flaw
from schemas.settings import Settings

_MAX_NAME_CHARACTERS: Final = 200

ManifestArgument = Annotated[
    str,
    typer.Argument(
        help="TSV, CSV, JSONL, Parquet, or txt with a prompt a line; texts also as .gz or .zst; - is standard input."
    ),
]
FormatOption = Annotated[
    str | None,
    typer.Option("--format", metavar="|".join(FORMATS), help="What the manifest is, where its name does not say so."),
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A field for all rows that do not give it.")
]
MapOption = Annotated[
    list[str] | None, typer.Option("--map", metavar="COLUMN=FIELD", help="Read a column as this field.")
]
LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="Only the first rows.")]
AgainOption = Annotated[bool, typer.Option("--again", help="Render anew the images that exist already.")]
SkipOption = Annotated[bool, typer.Option("--skip-invalid", help="Leave bad rows out instead of refusing all.")]
NameOption = Annotated[str | None, typer.Option("--name", help="The batch's name; else the manifest's.")]


def read_options(settings: Settings, fields: list[str] | None, columns: list[str] | None,
                 limit: int | None) -> ReadOptions:  # fmt: skip
    """Raises InputError for a ``--set`` or ``--map`` without ``=``."""
    return ReadOptions(
        columns=_pairs("--map", columns),
        defaults=_pairs("--set", fields),
        limit=limit,
        base_seed=settings.base_seed,
        inputs=Inputs(settings),
    )


def submit_manifest(database: Database, manifest: ManifestSource, options: ReadOptions, request: BatchRequest,
                    advised: CountedAdvice) -> Submission:  # fmt: skip
    """Reads and submits; `name` and the rest as in ``request``. ``advised`` sees the rows."""
    return submit(database, advised.passed(read_manifest(manifest, options)), request)


def batch_request(settings: Settings, manifest: ManifestSource, pair: str | None, name: str | None, priority: int,
                  skip_invalid: bool) -> BatchRequest:  # fmt: skip
    """Raises PairError for an unknown pair, InputError for a name that is none."""
    folder = settings.home / "invalid" if skip_invalid else None
    return BatchRequest(
        name=_batch_name(name, manifest),
        pair=settings.model_pair(pair).name,
        priority=priority,
        invalid_folder=folder,
        linked_in=settings.images_url,
    )


def anew(request: BatchRequest) -> BatchRequest:
    """The same, linking to nothing that exists."""
    return replace(request, linked_in=None)


def _batch_name(name: str | None, manifest: ManifestSource) -> str:
    if name is None:
        return manifest.stem[:_MAX_NAME_CHARACTERS]  # a file may be called anything
    if flaw := _name_flaw(name):
        raise InputError(f'--name "{shown_value(name)}": {flaw}')
    return name


def _name_flaw(name: str) -> str | None:
    if not name.strip():
        return "is empty; leave it out, and the batch is called as the manifest"
    if len(name) > _MAX_NAME_CHARACTERS:
        return f"has more than {_MAX_NAME_CHARACTERS} characters"
    if flaw := text_flaw(name):
        return flaw
    return "contains a control character" if any(unicodedata.category(c) == "Cc" for c in name) else None


def _pairs(option: str, items: list[str] | None) -> dict[str, str]:
    split = [item.partition("=") for item in items or []]
    for key, sign, value in split:
        if not sign or not key:
            raise InputError(f"{option} takes key=value, not {key + sign + value!r}")
    return {key.strip(): value for key, _, value in split}
