"""The options by which one row of a manifest becomes many jobs."""

from pathlib import Path
from typing import Annotated

import typer

from producer.expanding.expansion import MAX_COUNT, TemplateMode
from schemas.fields import MAX_SEED

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
