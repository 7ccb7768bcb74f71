"""The grids of a batch in a folder, out of a real ledger and a real image store."""

import hashlib
import io
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from farm import ledger
from farm.database import Database
from farm.image_store import ImageStore
from farm.retries import Failure
from producer.expanding.axes import parsed_axes
from producer.questions.queries import batch_summary
from producer.reports.grid_gallery import write_grids
from schemas.errors import StorageError
from schemas.records import ClaimedPack, FinishedImage
from tests.integration.ledger_farm import ENVIRONMENT, claimed_pack, images_of, new_ledger, new_worker, open_batch

AXES = parsed_axes("refiner.start=off,0.8", "negative_prompt=../../etc,none")
FORMATS = ("png", "webp", "jpeg", "png")


@pytest.fixture
def database(sqlite_url: str) -> Iterator[Database]:
    with closing(new_ledger(sqlite_url)) as database:
        yield database


def stored(store: ImageStore, image: FinishedImage, file_format: str) -> FinishedImage:
    content = io.BytesIO()
    Image.new("RGB", (64, 64), (40 * image.job_id % 256, 9, 9)).save(content, file_format)
    suffix = "jpg" if file_format == "jpeg" else file_format
    uri = store.put(content.getvalue(), hashlib.sha256(content.getvalue()).hexdigest(), suffix)
    return replace(image, image=replace(image.image, uri=uri))


def finish(database: Database, pack: ClaimedPack, store: ImageStore) -> None:
    images = [stored(store, image, FORMATS[n % 4]) for n, image in enumerate(images_of(pack))]
    ledger.finish_jobs(database, pack, ENVIRONMENT, images)


def claimed(database: Database, batch_id: int, size: int) -> ClaimedPack:
    return claimed_pack(database, batch_id, new_worker(database), size)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(str(tmp_path / "store"))


def test_images_keep_their_format_and_have_names_that_say_their_cell(
    database: Database, store: ImageStore, tmp_path: Path
) -> None:
    batch_id, out = open_batch(database, 8, width=64, height=64), tmp_path / "out"
    finish(database, claimed(database, batch_id, 8), store)
    assert write_grids(database, batch_summary(database, batch_id), AXES, out) == 2
    assert names(out) == ["images", "index.html", "row-0001.png", "row-0002.png"]
    assert names(out / "images")[:4] == [
        "row-0001-x1-refiner-start-off-y1-negative-prompt-etc.png",
        "row-0001-x1-refiner-start-off-y2-negative-prompt-none.jpg",
        "row-0001-x2-refiner-start-0-8-y1-negative-prompt-etc.webp",
        "row-0001-x2-refiner-start-0-8-y2-negative-prompt-none.png",
    ]
    assert {path.read_bytes() for path in (out / "images").iterdir()} == {
        path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()
    }


def test_a_failed_job_leaves_its_cell_to_its_reason_and_the_next_row_in_its_place(
    database: Database, store: ImageStore, tmp_path: Path
) -> None:
    batch_id, out = open_batch(database, 8, width=64, height=64), tmp_path / "out"
    first, rest = claimed(database, batch_id, 1), claimed(database, batch_id, 7)
    failure = Failure("invalid_image", "NaN <b>", retryable=False)
    ledger.fail_jobs(database, first, [first.jobs[0].id], failure, max_attempts=3)
    finish(database, rest, store)
    summary = batch_summary(database, batch_id)
    assert (summary.num_failed, summary.ended) == (1, True)
    assert write_grids(database, summary, AXES, out) == 2
    page = (out / "index.html").read_text()
    assert page.index("failed: NaN &lt;b&gt;") < page.index("row-0001-x2")
    assert [name[:11] for name in names(out / "images")].count("row-0002-x1") == 2


def test_a_batch_that_has_not_ended_gives_the_rows_that_have_a_picture(
    database: Database, store: ImageStore, tmp_path: Path
) -> None:
    batch_id, out = open_batch(database, 12, width=64, height=64), tmp_path / "out"
    finish(database, claimed(database, batch_id, 5), store)
    assert write_grids(database, batch_summary(database, batch_id), AXES, out) == 2
    assert names(out) == ["images", "index.html", "row-0001.png", "row-0002.png"]
    assert (out / "index.html").read_text().count("not rendered yet") == 3


def test_a_folder_that_cannot_be_made_is_a_storage_error(database: Database, tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    batch_id = open_batch(database, 4)
    with pytest.raises(StorageError, match="cannot make the folder"):
        write_grids(database, batch_summary(database, batch_id), AXES, tmp_path / "out")
