"""Images for people: copies with readable names."""

import hashlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from farm import ledger
from farm.database import Database
from farm.image_store import ImageStore
from producer.reports.gallery import place_images
from schemas.errors import StorageError
from tests.integration.ledger_farm import ENVIRONMENT, claimed_pack, images_of, new_ledger, new_worker, open_batch


@pytest.fixture
def database(sqlite_url: str) -> Iterator[Database]:
    with closing(new_ledger(sqlite_url)) as database:
        yield database


@pytest.fixture
def batch_id(database: Database, tmp_path: Path) -> int:
    """Two done jobs of three."""
    store = ImageStore(str(tmp_path / "images"))
    batch_id = open_batch(database, 3)
    pack = claimed_pack(database, batch_id, new_worker(database), size=2)
    images = []
    for image in images_of(pack):
        content = f"image of job {image.job_id}".encode()
        uri = store.put(content, hashlib.sha256(content).hexdigest(), "png")
        images.append(replace(image, image=replace(image.image, uri=uri)))
    ledger.finish_jobs(database, pack, ENVIRONMENT, images)
    return batch_id


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg"])
def test_a_placed_image_keeps_its_suffix(database: Database, tmp_path: Path, suffix: str) -> None:
    store, batch_id = ImageStore(str(tmp_path / "images")), open_batch(database, 1)
    pack = claimed_pack(database, batch_id, new_worker(database), size=1)
    [image] = images_of(pack)
    uri = store.put(b"image", hashlib.sha256(b"image").hexdigest(), suffix)
    ledger.finish_jobs(database, pack, ENVIRONMENT, [replace(image, image=replace(image.image, uri=uri))])
    assert place_images(database, batch_id, tmp_path / "out") == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"000001-cat-1.{suffix}"]


def test_editing_a_placed_image_leaves_the_recorded_file_alone(
    database: Database, batch_id: int, tmp_path: Path
) -> None:
    stored = {path: path.read_bytes() for path in (tmp_path / "images").rglob("*.png")}
    assert place_images(database, batch_id, tmp_path / "out") == 2
    placed = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in placed] == ["000001-cat-1.png", "000002-cat-2.png"]
    assert {path.read_bytes() for path in placed} == set(stored.values())
    for path in placed:
        path.write_bytes(b"edited")
    assert {path: path.read_bytes() for path in stored} == stored


def test_an_older_file_is_replaced_and_what_it_was_linked_to_stays(
    database: Database, batch_id: int, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    elsewhere = tmp_path / "elsewhere.png"
    elsewhere.write_bytes(b"precious")
    (tmp_path / "out" / "000001-cat-1.png").hardlink_to(elsewhere)
    place_images(database, batch_id, tmp_path / "out")
    assert (tmp_path / "out" / "000001-cat-1.png").read_bytes() == b"image of job 1"
    assert elsewhere.read_bytes() == b"precious"


def test_what_cannot_be_placed_is_a_storage_error_and_leaves_no_temporary_file(
    database: Database, batch_id: int, tmp_path: Path
) -> None:
    (tmp_path / "out" / "000001-cat-1.png").mkdir(parents=True)
    with pytest.raises(StorageError, match="cannot place images in"):
        place_images(database, batch_id, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["000001-cat-1.png"]
