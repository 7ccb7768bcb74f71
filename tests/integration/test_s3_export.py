"""`nightshift export` to a real S3 server, and from images that lie in one."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

from schemas.errors import StorageError
from tests.children import ROOT
from tests.integration.s3_proxy import INTERNAL_ERROR, SILENCE, S3Proxy
from tests.integration.s3_store import SECRET, S3Store, keys
from tests.unit.export_farm import ExportFarm, tree

NUM_IMAGES = 24


@pytest.fixture
def farm(tmp_path: Path, s3: S3Store) -> ExportFarm:
    """Its images lie in the bucket."""
    found = ExportFarm(tmp_path / "home", images_url=s3.url)
    found.batch([{"prompt": f"cat {n // 3}"} for n in range(NUM_IMAGES)])
    return found


def options(file_format: str, to: object) -> list[str]:
    return ["1", "--format", file_format, "--shard-size", "5", "--split", "train=0.7,test=0.3", "--to", str(to)]


def objects(s3: S3Store, prefix: str) -> dict[str, str]:
    """As ``tree``, of what lies below the prefix."""
    remote = fsspec.filesystem("s3")
    below = [key for key in keys(s3) if key.startswith(f"{prefix}/")]
    contents = {key.removeprefix(f"{prefix}/"): remote.cat_file(f"{s3.bucket}/{key}") for key in below}
    return {key: hashlib.sha256(content).hexdigest() for key, content in contents.items()}


@pytest.mark.parametrize("file_format", ["imagefolder", "webdataset", "parquet"])
def test_killed_between_two_objects_and_run_again_it_ends_with_the_bytes_of_a_local_folder(
    farm: ExportFarm, s3: S3Store, proxy: S3Proxy, tmp_path: Path, file_format: str
) -> None:
    farm.export(*options(file_format, tmp_path / "set"))
    to, temporary = f"s3://{s3.bucket}/sets/cats", tmp_path / "temporary"
    temporary.mkdir()
    proxy.let_pass("PUT", 4)
    proxy.fail("PUT", SILENCE, times=50)
    command = [sys.executable, "-P", "-m", "nightshift", "export", *options(file_format, to)]
    environment = {**os.environ, **farm.variables(), "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        assert proxy.asked.acquire(timeout=60)
    finally:
        process.kill()
        process.wait()
    proxy.forget_faults()
    assert list(temporary.iterdir()) == []
    begun = objects(s3, "sets/cats")
    assert len(begun) == 4
    farm.export(*options(file_format, to))
    ended = objects(s3, "sets/cats")
    assert ended == tree(tmp_path / "set")
    assert begun.items() <= ended.items()


def test_a_shard_whose_put_fails_is_not_there_and_comes_with_the_next_run(
    farm: ExportFarm, s3: S3Store, proxy: S3Proxy
) -> None:
    to = f"s3://{s3.bucket}/sets/cats"
    proxy.let_pass("PUT", 1)
    proxy.fail("PUT", INTERNAL_ERROR, times=5)
    with pytest.raises(StorageError, match=r"cannot export to s3://.*internal error") as caught:
        farm.export(*options("parquet", to))
    assert SECRET not in str(caught.value)
    assert list(objects(s3, "sets/cats")) == [".nightshift-export.json"]
    assert farm.export(*options("parquet", to))["num_written"] == NUM_IMAGES


def test_what_is_there_already_is_neither_read_nor_put_again(farm: ExportFarm, s3: S3Store, proxy: S3Proxy) -> None:
    to = f"s3://{s3.bucket}/sets/cats"
    farm.export(*options("imagefolder", to))
    proxy.requests.clear()
    farm.export(*options("imagefolder", to))
    put = [path for method, path in proxy.requests if method == "PUT"]
    assert {path.rpartition("/")[2] for path in put} == {"metadata.jsonl", "README.md"}
    assert not any(path.endswith(".png") for _, path in proxy.requests)


def test_a_bucket_that_is_missing_is_said_and_not_made(farm: ExportFarm, s3: S3Store) -> None:
    with pytest.raises(StorageError, match="make the bucket, or mend its name"):
        farm.export(*options("csv", "s3://nobodys-bucket/cats"))
    assert not fsspec.filesystem("s3").exists("nobodys-bucket")


def test_an_image_that_is_gone_from_the_bucket_is_named_with_its_job(
    farm: ExportFarm, s3: S3Store, tmp_path: Path
) -> None:
    fsspec.filesystem("s3").rm_file(f"{s3.bucket}/{keys(s3)[0]}")
    with pytest.raises(StorageError, match=r"job 1/\d+: s3://.* is missing"):
        farm.export(*options("webdataset", tmp_path / "set"))
