"""The options by which one row of a manifest becomes many jobs."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

import typer

from producer.expansion import MAX_COUNT, Expansion, TemplateMode
from producer.manifest import ReadOptions
from producer.sweeps import parsed_sweep
from schemas.fields import MAX_SEED

MAX_JOBS: Final = 1_000_000

TemplatesOption = Annotated[
    TemplateMode | None,
    typer.Option("--templates", help="Read {a|b} and __wildcard__ in prompts: a text for each image, or all texts."),
]
WildcardsOption = Annotated[
    Path | None, typer.Option("--wildcards", metavar="FOLDER", help="Where the wildcards' .txt files lie.")
]
SweepOption = Annotated[
    list[str] | None,
    typer.Option("--sweep", metavar="FIELD=VALUE,...", help="Render each row with these values; 4:8:1 is a range."),
]
ZipOption = Annotated[bool, typer.Option("--zip", help="Walk all --sweep together, instead of combining them.")]
CountOption = Annotated[int, typer.Option("--count", min=1, max=MAX_COUNT, help="Images of each row, each its seed.")]
BaseSeedOption = Annotated[
    int | None, typer.Option("--base-seed", min=0, max=MAX_SEED, help="What the seeds of rows without one come from.")
]
MaxJobsOption = Annotated[int, typer.Option("--max-jobs", min=1, help="Refuse a manifest that would be more.")]


def parsed_expansion(templates: TemplateMode | None, wildcards: Path | None, sweep: list[str] | None, zipped: bool,
                     count: int) -> Expansion:  # fmt: skip
    """What the options ask of every row. Raises InputError."""
    return Expansion(templates, wildcards, parsed_sweep(sweep or [], zipped=zipped), count)


def expanding(options: ReadOptions, expansion: Expansion, base_seed: int | None, max_jobs: int) -> ReadOptions:
    """The same, with what is asked of every row. ``base_seed`` None: the settings' one."""
    chosen = options.base_seed if base_seed is None else base_seed
    return replace(options, expansion=expansion, base_seed=chosen, max_jobs=max_jobs)
