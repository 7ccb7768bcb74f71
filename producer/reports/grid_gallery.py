"""The grids of a batch in a folder: a copy of every image, a sheet for each row, and the page.

Files: ``images/row-0001-x2-refiner-start-0-8-y1-seed-1.png``, ``row-0001.png``, ``index.html``.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

from farm.database import Database
from producer.expanding.axes import Axes, AxisValue
from producer.questions.queries import BatchSummary, outcomes
from producer.reports.gallery import place_image, slugged
from producer.reports.grid import IMAGES, Cell, Grid
from producer.reports.grid_page import grid_page
from producer.reports.grid_sheet import grid_sheet
from schemas.errors import StorageError
from schemas.printable import printable
from schemas.spec import JobSpec
from schemas.states import JobState

PAGE: Final = "index.html"
_SLUG_CHARACTERS: Final = 40


def write_grids(database: Database, batch: BatchSummary, axes: Axes, folder: Path) -> int:
    """Writes everything into the folder, a row at a time; files of the same name are replaced. Returns how many sheets.

    A batch that has not ended gives the sheets of those rows that have a picture already.

    Raises:
        StorageError: the folder cannot be written, or an image not be read.
    """
    try:
        (folder / IMAGES).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make the folder {folder / IMAGES}: {error.strerror or error}") from error
    return grid_page(_sheets(database, batch, axes, folder), folder / PAGE, batch.name, axes)


def _sheets(database: Database, batch: BatchSummary, axes: Axes, folder: Path) -> Iterator[Grid]:
    """Every grid, once its sheet and its images are there."""
    jobs = outcomes(database, batch.id)
    number = 0
    while row := list(islice(jobs, axes.num_cells)):
        number += 1
        if not batch.ended and all(job.uri is None for job in row):
            continue
        grid = Grid(number, axes, _cells(number, axes, row, folder))
        grid_sheet(grid, folder / f"{grid.name}.png")
        yield grid


def _cells(number: int, axes: Axes, jobs: Sequence[Any], folder: Path) -> list[Cell]:
    cells = []
    for job, values in zip(jobs, axes.cells, strict=True):
        spec = JobSpec.from_json(job.spec)
        if job.uri is None:
            cells.append(Cell(values, spec, reason=_reason(job)))
            continue
        place = len(cells)
        path = folder / IMAGES / _file_name(number, axes, place, job.uri)
        try:
            place_image(job.uri, path)
        except OSError as error:
            raise StorageError(f"cannot place an image at {path}: {error.strerror or error}") from error
        cells.append(Cell(values, spec, path))
    return cells


def _reason(job: Any) -> str:
    if job.state == JobState.FAILED:
        return printable(f"failed: {job.error}")
    return "canceled" if job.state == JobState.CANCELED else "not rendered yet"


def _file_name(number: int, axes: Axes, place: int, uri: str) -> str:
    line, column = divmod(place, len(axes.x.values))
    named = _part("x", column, axes.x.values[column])
    if axes.y is not None:
        named += "-" + _part("y", line, axes.y.values[line])
    return f"row-{number:04}-{named}.{uri.rpartition('.')[2]}"


def _part(letter: str, place: int, value: AxisValue) -> str:
    return f"{letter}{place + 1}-{slugged(f'{value.field} {value.label}', _SLUG_CHARACTERS)}"
