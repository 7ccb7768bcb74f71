"""Manifests behind a URL: read as they come, and what is wrong with them is said without a secret."""

import gzip
from collections.abc import Iterator
from typing import NoReturn

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from producer.manifests.manifest import ReadOptions, Row, read_manifest
from producer.manifests.manifest_source import ManifestSource
from schemas.errors import ManifestError, MissingManifestError, NightshiftError, StorageError
from tests.unit.manifest_server import ManifestServer
from tests.unit.test_parquet_manifests import parquet_of

PLANTED = "hunter2-planted"


def read(url: str, content_format: str | None = None, **options: object) -> list[str]:
    rows = read_manifest(ManifestSource.parse(url, content_format), ReadOptions(**options))  # type: ignore[arg-type]
    return [row.spec.prompt if isinstance(row, Row) else str(row) for row in rows]


def refusal(url: str, kind: type[NightshiftError] = ManifestError) -> str:
    with pytest.raises(kind) as error:
        read(url)
    assert str(error.value).isprintable()
    assert PLANTED not in str(error.value)
    return str(error.value)


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    filesystem = fsspec.filesystem("memory")
    yield filesystem
    filesystem.store.clear()


def test_any_store_that_fsspec_knows_is_read(memory: fsspec.AbstractFileSystem) -> None:
    memory.pipe("/cats/a.tsv", b"Prompt\tWidth\na fox\t64\na cat\t65\n")
    memory.pipe("/cats/a.jsonl.gz", gzip.compress(b'{"prompt": "a dog"}\n'))
    fox, cat = read("memory://cats/a.tsv")
    assert fox == "a fox"
    assert cat.startswith('memory://cats/a.tsv:3: column "Width": "65": ')
    assert read("memory://cats/a.jsonl.gz") == ["a dog"]


def test_a_file_url_is_a_path(tmp_path: object) -> None:
    source = ManifestSource.parse(f"file://{tmp_path}/a%20b.tsv")
    assert source.name == f"{tmp_path}/a b.tsv"
    assert refusal(f"file://{tmp_path}/a%20b.tsv") == f"there is no file {tmp_path}/a b.tsv"


@pytest.mark.parametrize("gives_ranges", [True, False])
def test_a_web_server_is_read_whether_it_gives_parts_or_not(
    manifest_server: ManifestServer, gives_ranges: bool
) -> None:
    manifest_server.gives_ranges = gives_ranges
    lines = [f"{n}" + "x" * 15_000 for n in range(300)]  # more than fsspec asks for at a time
    manifest_server.files = {"/a.txt": "\n".join(lines).encode(), "/b.txt.gz": gzip.compress("\n".join(lines).encode())}
    assert read(f"{manifest_server.url}/a.txt") == lines
    assert read(f"{manifest_server.url}/b.txt.gz?sig={PLANTED}") == lines
    assert read(f"{manifest_server.url}/a.txt?name=x", "txt", limit=1) == lines[:1]


def test_parquet_is_read_by_parts(manifest_server: ManifestServer) -> None:
    manifest_server.files = {"/a.parquet": parquet_of({"prompt": [f"fox {n}" for n in range(500)]})}
    assert read(f"{manifest_server.url}/a.parquet?sig={PLANTED}") == [f"fox {n}" for n in range(500)]
    said = refusal(f"{manifest_server.url}/b.parquet?sig={PLANTED}", MissingManifestError)
    assert said.endswith("/b.parquet?sig=***")


def test_no_more_is_fetched_than_the_limit_needs(manifest_server: ManifestServer) -> None:
    manifest_server.files = {"/a.txt": b"a fox\n" * 10_000_000}
    assert read(f"{manifest_server.url}/a.txt", limit=2) == ["a fox", "a fox"]
    assert manifest_server.num_sent < 30_000_000


@pytest.mark.parametrize(
    ("status", "kind", "sentence"),
    [
        (404, MissingManifestError, "there is no file http://127.0.0.1:{}/a.tsv?sig=***"),
        (403, ManifestError, "cannot read http://127.0.0.1:{}/a.tsv?sig=***: access is denied (403)"),
        (401, ManifestError, "cannot read http://127.0.0.1:{}/a.tsv?sig=***: access is denied (401)"),
        (503, StorageError, "cannot read http://127.0.0.1:{}/a.tsv?sig=***: the server answers 503"),
    ],
)
def test_what_a_server_refuses_is_one_sentence(
    manifest_server: ManifestServer, status: int, kind: type[NightshiftError], sentence: str
) -> None:
    manifest_server.statuses = {"/a.tsv": status}
    said = refusal(f"{manifest_server.url}/a.tsv?sig={PLANTED}", kind)
    assert said == sentence.format(manifest_server.url.rpartition(":")[2])


def test_a_token_of_a_redirect_is_not_told_either(manifest_server: ManifestServer) -> None:
    manifest_server.redirects = {"/a.tsv": f"http://127.0.0.1:9/b.tsv?sig={PLANTED}"}
    assert "cannot read" in refusal(f"{manifest_server.url}/a.tsv", StorageError)


def test_whatever_a_store_raises_is_one_sentence_and_tells_no_url_whole() -> None:
    class Telling(MemoryFileSystem):
        protocol = "telling"

        def open(self, path: str, *_args: object, **_options: object) -> NoReturn:
            raise RuntimeError(f"GET https://cdn/x?sig=another-secret failed\nfor {PLANTED}")

    fsspec.register_implementation("telling", Telling, clobber=True)
    said = refusal(f"telling://me:{PLANTED}@host/a.tsv", StorageError)
    assert said == "cannot read telling://me:***@host/a.tsv: GET https://cdn/x?sig=*** failed for ***"


def test_an_answer_that_breaks_off_is_not_taken_for_all(manifest_server: ManifestServer) -> None:
    manifest_server.files = {"/a.txt": b"a fox\n" * 100_000}
    manifest_server.cut = {"/a.txt": 300_000}
    assert "cannot read http://127.0.0.1" in refusal(f"{manifest_server.url}/a.txt", StorageError)


def test_what_cannot_be_opened_at_all_is_one_sentence(
    memory: fsspec.AbstractFileSystem, unreachable_store: str
) -> None:
    assert refusal("memory://a.tsv") == "there is no file memory://a.tsv"
    assert refusal("nothing://a/b.tsv") == "cannot read nothing://a/b.tsv: Protocol not known: nothing"
    assert "could not connect to the endpoint" in refusal(f"{unreachable_store}/a.tsv", StorageError)
    refused = refusal(f"http://me:{PLANTED}@127.0.0.1:9/a.tsv", StorageError)
    assert refused.startswith("cannot read http://me:***@127.0.0.1:9/a.tsv: Cannot connect to host 127.0.0.1:9")


def test_a_package_that_is_missing_is_named() -> None:
    fsspec.register_implementation("lacking", "no.such.Store", clobber=True, errtxt="Please install lackingfs")
    assert refusal("lacking://bucket/a.tsv") == "cannot read lacking://bucket/a.tsv: Please install lackingfs"


def test_a_url_inside_another_is_refused() -> None:
    with pytest.raises(ManifestError, match="a URL inside another"):
        ManifestSource.parse(f"simplecache::https://me:{PLANTED}@host/a.tsv")


def test_a_url_without_a_suffix_needs_a_format(memory: fsspec.AbstractFileSystem) -> None:
    memory.pipe("/export", b"Prompt\na fox\n")
    assert read("memory://export", "tsv") == ["a fox"]
    assert 'unknown suffix ""' in refusal("memory://export")
