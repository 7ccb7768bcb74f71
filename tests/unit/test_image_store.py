"""The image store on a real folder, and on another fsspec file system."""

import hashlib
import os
from pathlib import Path

import fsspec
import pytest

from farm.image_store import ImageStore, local_path, read_image, write_atomically
from schemas.errors import SettingsError, StorageError

CONTENT = b"an image"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def test_an_image_is_found_again_by_its_uri(tmp_path: Path) -> None:
    uri = ImageStore((tmp_path / "my images").as_uri()).put(CONTENT, SHA256, "png")
    assert read_image(uri) == CONTENT
    assert local_path(uri) == tmp_path / "my images" / SHA256[:2] / SHA256[2:4] / f"{SHA256}.png"


def test_a_plain_path_is_a_store_too(tmp_path: Path) -> None:
    assert ImageStore(str(tmp_path)).put(CONTENT, SHA256, "png").startswith(tmp_path.as_uri())


def test_any_fsspec_url_is_a_store() -> None:
    store = ImageStore("memory://nightshift-test/images")
    store.check()
    uri = store.put(CONTENT, SHA256, "png")
    assert read_image(uri) == CONTENT
    assert local_path(uri) is None
    assert not fsspec.filesystem("memory").glob("/nightshift-test/images/.probe*")


def test_an_interrupted_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError, match="No space left on device"):
        ImageStore(str(tmp_path)).put(CONTENT, SHA256, "png")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_nothing_is_visible_under_its_name_before_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    rename = os.rename

    def watched(source: Path, target: Path) -> None:
        seen.append(Path(target).exists())
        assert Path(source).read_bytes() == CONTENT
        rename(source, target)

    monkeypatch.setattr(os, "rename", watched)
    write_atomically(tmp_path / "image.png", CONTENT)
    assert seen == [False]


def test_a_store_that_cannot_be_written_says_so_before_anything_is_rendered() -> None:
    with pytest.raises(StorageError, match="cannot be written"):
        ImageStore("file:///proc/nightshift").check()


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(SettingsError, match="images_url"):
        ImageStore("gopher://images")


def test_a_store_like_s3_that_does_not_answer_is_waited_for(unreachable_store: str) -> None:
    """StorageError is retried; botocore's own error would fail the job."""
    store = ImageStore(unreachable_store)
    with pytest.raises(StorageError, match="cannot store an image below unreachable://images: could not connect"):
        store.put(CONTENT, SHA256, "png")
    with pytest.raises(StorageError, match="cannot be written: could not connect"):
        store.check()
    with pytest.raises(StorageError, match="could not connect"):
        read_image(f"{unreachable_store}/{SHA256}.png")
