"""A batch's report: one HTML file that needs nothing beside it. Reads ledger and image store."""

from pathlib import Path

from farm.database import Database
from farm.image_store import writing_atomically
from producer.questions.queries import BatchSummary
from producer.reports.report_figures import Figures, figures
from producer.reports.report_page import page
from producer.reports.report_samples import samples
from schemas.errors import StorageError
from schemas.windows import Window


def write_report(database: Database, batch: BatchSummary, path: Path, num_samples: int, farm_window: str) -> Figures:
    """Writes the file at once and whole, in place of an older one. Times in it are in the batch's time zone, else the
    farm's, else this machine's. Returns what it says in numbers.

    Raises:
        NotFoundError: the batch is gone.
        StorageError: the file cannot be written.
    """
    report = figures(database, batch.id)
    window = batch.window or farm_window
    zone = Window.parse(window).zone if window else None
    try:
        with writing_atomically(path) as stream:
            for piece in page(report, samples(database, report.batch, num_samples), zone):
                stream.write(piece.encode())
    except OSError as error:
        raise StorageError(f"cannot write the report {path}: {error.strerror or error}") from error
    return report
