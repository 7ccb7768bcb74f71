"""How one row of a manifest becomes many jobs: templates, then sweeps, then ``count`` images of each.

With sampled templates each of the ``count`` images has a drawing of its own, as if the row stood there so often.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from producer.expanding.given_wildcards import GivenWildcards
from producer.expanding.sweeps import Sweep
from schemas.errors import InputError

#: of one row
MAX_COUNT: Final = 1_000_000


class TemplateMode(StrEnum):
    """Which of a template's texts a row is rendered with."""

    SAMPLE = "sample"
    ALL = "all"


@dataclass(frozen=True)
class Expansion:
    """What the options ask of every row.

    ``templates`` None: braces are text. ``wildcards``: a folder, or what was given. ``count``: for rows without one.
    """

    templates: TemplateMode | None = None
    wildcards: Path | GivenWildcards | None = None
    sweep: Sweep | None = None
    count: int = 1

    def __post_init__(self) -> None:
        if self.wildcards is not None and self.templates is None:
            raise InputError("--wildcards says nothing without --templates sample or --templates all")
        if not 1 <= self.count <= MAX_COUNT:
            raise InputError(f"--count {self.count:,}: is not between 1 and {MAX_COUNT:,}")
        if self.count > 1 and self.sweep is not None and "seed" in self.sweep.fields:
            raise InputError("--count and --sweep seed both say which seeds there are; take one of them")


NO_EXPANSION: Final = Expansion()
