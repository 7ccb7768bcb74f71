"""Thumbnails in real stores: made once, kept, told from orphans."""

import hashlib
import io
import os
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from PIL import Image as Pillow

from farm.image_store import read_image
from farm.store_keys import store_key
from farm.thumbnails import thumbnail
from producer.questions.job_pages import job_of
from producer.questions.job_results import JobResult
from producer.upkeep.verification import Verification
from schemas.errors import StorageError
from schemas.settings import Settings
from tests.integration.ledger_farm import TestClock, new_ledger
from tests.integration.stored_farm import done_batch


@pytest.fixture
def job(sqlite_url: str, tmp_path: Path) -> JobResult:
    with closing(new_ledger(sqlite_url)) as database:
        batch_id = done_batch(database, str(tmp_path / "images"), ({"width": 512, "height": 256},))
        return job_of(database, batch_id, 1)


def made(job: JobResult, folder: Path) -> bytes:
    assert job.sha256 is not None
    return thumbnail(str(folder), job.sha256, lambda: read_image(job.uri or ""))


def kept(folder: Path) -> list[Path]:
    return list((folder / "thumbnails").rglob("*.webp"))


def test_a_thumbnail_is_small_and_made_once(job: JobResult, tmp_path: Path) -> None:
    content = made(job, tmp_path / "images")
    with Pillow.open(io.BytesIO(content)) as picture:
        assert (picture.format, picture.size) == ("WEBP", (384, 192))
    (path,) = kept(tmp_path / "images")
    path.write_bytes(b"what is kept is not made again")
    assert made(job, tmp_path / "images") == b"what is kept is not made again"


def test_a_store_that_cannot_be_written_gives_thumbnails_all_the_same(job: JobResult, tmp_path: Path) -> None:
    (tmp_path / "images" / "thumbnails").write_text("a file in the folder's place")
    assert made(job, tmp_path / "images").startswith(b"RIFF")


def test_an_image_that_is_none_is_said(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot read the image"):
        thumbnail(str(tmp_path), hashlib.sha256(b"torn").hexdigest(), lambda: b"torn")
    assert kept(tmp_path) == []


def test_of_another_image_than_was_recorded_no_thumbnail_is_shown_or_kept(job: JobResult, tmp_path: Path) -> None:
    (path,) = (tmp_path / "images").rglob("*.png")
    Pillow.new("RGB", (512, 256)).save(path)
    with pytest.raises(StorageError, match=f"no longer the image {job.sha256}"):
        made(job, tmp_path / "images")
    assert kept(tmp_path / "images") == []


def test_thumbnails_in_a_store_behind_fsspec(job: JobResult) -> None:
    uri, sha256, url = job.uri or "", job.sha256 or "", "memory://nightshift-thumbnails"
    first = thumbnail(url, sha256, lambda: read_image(uri))
    assert thumbnail(url, sha256, lambda: read_image("file:///gone.png")) == first


def test_a_thumbnail_is_an_orphan_when_its_image_is_gone(sqlite_url: str, tmp_path: Path, job: JobResult) -> None:
    images = tmp_path / "images"
    made(job, images)
    (path,) = kept(images)
    stray = path.with_name("ab" * 32 + ".webp")
    stray = images / "thumbnails" / "ab" / "ab" / stray.name
    stray.parent.mkdir(parents=True)
    stray.write_bytes(path.read_bytes())
    two_days_ago = TestClock().now - timedelta(days=365)
    for file in (path, stray):
        os.utime(file, (two_days_ago.timestamp(),) * 2)
    with closing(new_ledger(sqlite_url)) as database:
        verification = Verification(database, Settings(images_url=str(images)), lambda _: None)
        findings = list(verification.of_everything(clean=True))
    assert findings == []
    assert verification.counts.num_findings == 0
    assert path.exists()
    assert not stray.exists()


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (f"thumbnails/ab/cd/abcd{'0' * 60}.webp", "thumbnail"),
        (f"thumbnails/ab/cd/.abcd{'0' * 60}.webp.01234567.tmp", "leftover"),
        (f"thumbnails/ab/cd/abcd{'0' * 60}.png", "foreign"),
        (f"thumbnails/ab/ce/abcd{'0' * 60}.webp", "foreign"),
    ],
)
def test_a_thumbnail_is_known_by_its_key(key: str, kind: str) -> None:
    assert store_key(key).kind == kind
