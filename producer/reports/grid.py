"""The grid of one row of a manifest, ready to be shown: its cells, its headings, and what all cells share."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from producer.expanding.axes import Axes, AxisValue
from producer.reports.detail import detail
from schemas.spec import JobSpec

#: the folder of the pictures, beside the page
IMAGES: Final = "images"


@dataclass(frozen=True)
class Cell:
    """One picture. ``file``: where it lies, None where there is none, and ``reason`` says why. Sizes are pixels."""

    values: tuple[AxisValue, ...]
    spec: JobSpec
    file: Path | None = None
    reason: str = ""

    @property
    def label(self) -> str:
        """``refiner.start=0.8, seed=1``"""
        return ", ".join(map(str, self.values))


@dataclass(frozen=True)
class Grid:
    """The cells of a manifest's row, from left to right, then from top to bottom. ``number``: the row's, from 1."""

    number: int
    axes: Axes
    cells: Sequence[Cell]

    @property
    def name(self) -> str:
        """Of its files: ``row-0001``"""
        return f"row-{self.number:04}"

    @property
    def title(self) -> str:
        """The prompt; which row it is, where the prompts are on an axis."""
        return f"Row {self.number}" if "prompt" in self.axes.fields else self.cells[0].spec.prompt

    @property
    def shared(self) -> str:
        """What is the same in all cells, in one line."""
        return detail(self.cells[0].spec, self.axes.decided)

    @property
    def headings(self) -> Sequence[AxisValue | None]:
        """One for each line of cells; None where there is no y axis."""
        return self.axes.y.values if self.axes.y else (None,)

    @property
    def lines(self) -> list[Sequence[Cell]]:
        """The cells, line by line."""
        width = len(self.axes.x.values)
        return [self.cells[start : start + width] for start in range(0, len(self.cells), width)]
