"""Images and their small pictures over HTTP, from an image store that is a bucket."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from farm.image_store import ImageStore
from tests.integration.ledger_farm import open_batch
from tests.integration.played_worker import render
from tests.integration.s3_store import SECRET, S3Store, keys
from tests.integration.web_client import HERE
from tests.integration.web_farm import FarmWithPage, farm_with_page

IMAGE = "/api/v1/batches/1/jobs/1/image"
THUMBNAIL = "/batches/1/jobs/1/thumbnail"


@pytest.fixture
def farm(s3: S3Store, tmp_path: Path) -> Iterator[FarmWithPage]:
    """Of one batch with one image, which lies in the bucket."""
    with farm_with_page(tmp_path, images_url=s3.url) as farm:
        render(farm.database, ImageStore(s3.url), open_batch(farm.database, 1), 1)
        yield farm


def test_an_image_in_a_bucket_comes_whole_or_in_part(farm: FarmWithPage) -> None:
    with farm.client(peer=HERE) as client:
        whole = client.get(IMAGE)
        assert (whole.status_code, whole.headers["content-type"]) == (200, "image/png")
        assert whole.headers["etag"] == f'"{hashlib.sha256(whole.content).hexdigest()}"'
        part = client.get(IMAGE, headers={"Range": "bytes=5-9"})
        assert (part.status_code, part.content) == (206, whole.content[5:10])


def test_a_small_picture_is_made_once_and_stays_in_the_bucket(farm: FarmWithPage, s3: S3Store) -> None:
    with farm.client(peer=HERE) as client:
        first = client.get(THUMBNAIL)
        assert (first.status_code, first.content[:4]) == (200, b"RIFF")
        (made,) = [key for key in keys(s3) if "/thumbnails/" in key]
        other = b"RIFF: what lies there is what is shown"
        fsspec.filesystem("s3").pipe_file(f"{s3.bucket}/{made}", other)
        assert client.get(THUMBNAIL).content == other


def test_an_image_that_is_gone_from_the_bucket_is_said_without_a_secret(farm: FarmWithPage, s3: S3Store) -> None:
    (key,) = keys(s3)
    fsspec.filesystem("s3").rm(f"{s3.bucket}/{key}")
    with farm.client(peer=HERE) as client:
        answer = client.get(IMAGE)
        assert (answer.status_code, answer.json()["code"]) == (503, "storage")
        assert SECRET not in answer.text
        assert client.get(THUMBNAIL).status_code == 503
