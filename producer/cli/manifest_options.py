"""The options by which `submit` and `render` read a manifest."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from producer.manifests.manifest_format import FORMATS
from schemas.errors import InputError
from schemas.submit_order import SubmitOrder

ManifestArgument = Annotated[
    str,
    typer.Argument(
        help="TSV, CSV, JSONL, Parquet, or txt with a prompt a line; a text also as .gz or .zst. A file, a folder of"
        " them, a URL, or - for standard input."
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
SkipOption = Annotated[
    bool,
    typer.Option(
        "--skip-invalid", help="Leave bad rows out instead of refusing all. The others begin once all are read."
    ),
]
NameOption = Annotated[str | None, typer.Option("--name", help="The batch's name; else the manifest's.")]


def given_order(manifest: str, fields: list[str] | None, columns: list[str] | None, **rest: object) -> SubmitOrder:
    """The order of a command line. ``rest``: as ``SubmitOrder`` names it; what is None is left out.

    Raises:
        InputError: a ``--set`` or ``--map`` without ``=``.
    """
    split = {"fields": _pairs("--set", fields), "columns": _pairs("--map", columns)}
    given = {name: _plain(value) for name, value in rest.items() if value is not None}
    return SubmitOrder.model_validate({"manifest": manifest, **split, **given})


def _plain(value: object) -> object:
    match value:
        case Path():
            return str(value.absolute())  # a schedule reads it again, from elsewhere
        case list():
            return tuple(value)
        case StrEnum():
            return value.value
    return value


def _pairs(option: str, items: list[str] | None) -> dict[str, str]:
    split = [item.partition("=") for item in items or []]
    for key, sign, value in split:
        if not sign or not key:
            raise InputError(f"{option} takes key=value, not {key + sign + value!r}")
    return {key.strip(): value for key, _, value in split}
