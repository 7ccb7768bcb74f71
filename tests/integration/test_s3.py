"""The image store on a real S3 server, with a proxy in front where it is to fail."""

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import fsspec
import pytest
from sqlalchemy import select, update
from typer.testing import CliRunner

from farm.database import Database
from farm.image_store import ImageStore, read_image
from farm.inputs import InputStore
from farm.stored_files import StoredFiles, stored_files
from nightshift import app
from producer.exports.targets import put, target
from producer.submitting.linking import StoredImages
from producer.upkeep.doctor import examine
from schemas.errors import InputFileError, NightshiftError, StorageError
from schemas.settings import Settings
from schemas.tables import Image
from tests.children import ROOT
from tests.integration.ledger_farm import TestClock, new_ledger
from tests.integration.s3_proxy import ANSWER_LOST, HANGUP, INTERNAL_ERROR, SILENCE, SLOW_DOWN, Fault, S3Proxy
from tests.integration.s3_store import SECRET, S3Store, forget_opened, keys, s3_variables, use_endpoint
from tests.integration.stored_farm import done_batch

CONTENT = b"an image"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
WRONG_KEY = Fault(403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.")
PRECONDITION = Fault(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold")


def refusal(action: object) -> str:
    with pytest.raises(StorageError) as caught:
        action()  # type: ignore[operator]
    sentence = str(caught.value)
    assert SECRET not in sentence
    assert "\n" not in sentence
    return sentence


def test_an_image_is_put_and_read_back_with_botocores_own_variables_alone(s3: S3Store) -> None:
    store = ImageStore(s3.url)
    uri = store.put(CONTENT, SHA256, "png")
    assert uri == f"{s3.url}/{SHA256[:2]}/{SHA256[2:4]}/{SHA256}.png"
    assert read_image(uri) == CONTENT
    assert store.has(uri)
    assert not store.has(uri.replace(".png", ".webp"))


def test_an_image_costs_one_put_and_nothing_is_listed(s3: S3Store, proxy: S3Proxy) -> None:
    ImageStore(s3.url).put(CONTENT, SHA256, "png")
    assert [method for method, _ in proxy.requests] == ["PUT"]
    ImageStore(s3.url).has(f"{s3.url}/{SHA256[:2]}/{SHA256[2:4]}/{SHA256}.png")
    read_image(f"{s3.url}/{SHA256[:2]}/{SHA256[2:4]}/{SHA256}.png")
    assert [method for method, _ in proxy.requests[1:]] == ["HEAD", "HEAD", "GET"]
    assert not any("list-type" in path for _, path in proxy.requests)


def test_a_late_twin_puts_the_same_bytes_under_the_same_name(s3: S3Store) -> None:
    """A conditional put would leave the old time, by which gc would take the object away from its new row."""
    uris = {ImageStore(s3.url).put(CONTENT, SHA256, "png") for _ in range(2)}
    other = b"other bytes of the same job"
    ImageStore(s3.url).put(other, hashlib.sha256(other).hexdigest(), "png")
    assert len(uris) == 1
    assert read_image(uris.pop()) == CONTENT
    assert len(keys(s3)) == 2


def test_the_check_leaves_nothing_behind_and_doctor_repeats_what_it_says(
    s3: S3Store, proxy: S3Proxy, tmp_path: Path
) -> None:
    ImageStore(s3.url).check()
    assert keys(s3) == []
    proxy.fail("PUT", WRONG_KEY)
    settings = Settings(home=tmp_path, images_url=s3.url)
    said = {finding.subject: finding for finding in examine(settings)}["image store"]
    assert not said.ok
    assert "AWS_ACCESS_KEY_ID" in said.sentence


@pytest.mark.parametrize("fault", [INTERNAL_ERROR, SLOW_DOWN, HANGUP])
def test_a_store_that_fails_for_a_moment_is_asked_again(s3: S3Store, proxy: S3Proxy, fault: Fault) -> None:
    store = ImageStore(s3.url)
    proxy.fail("PUT", fault, times=2)
    assert read_image(store.put(CONTENT, SHA256, "png")) == CONTENT
    assert proxy.num("PUT") == 3


def test_an_answer_that_was_lost_is_asked_for_again_and_changes_nothing(s3: S3Store, proxy: S3Proxy) -> None:
    proxy.fail("PUT", ANSWER_LOST)
    assert read_image(ImageStore(s3.url).put(CONTENT, SHA256, "png")) == CONTENT
    assert len(keys(s3)) == 1


def test_a_store_that_says_nothing_is_asked_again_after_the_time_that_was_set(
    s3: S3Store, proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": {"read_timeout": 1.0}})  # what FSSPEC_S3 sets
    proxy.fail("PUT", SILENCE)
    assert read_image(ImageStore(s3.url).put(CONTENT, SHA256, "png")) == CONTENT


def test_a_store_that_keeps_failing_is_one_sentence_and_retryable(s3: S3Store, proxy: S3Proxy) -> None:
    store = ImageStore(s3.url)
    proxy.fail("PUT", INTERNAL_ERROR, times=5)
    assert refusal(lambda: store.put(CONTENT, SHA256, "png")).endswith("internal error. Please try again.")
    assert proxy.num("PUT") == 5
    proxy.fail("PUT", PRECONDITION)
    assert "pre-conditions" in refusal(lambda: store.put(CONTENT, SHA256, "png"))
    assert StorageError.retryable


@pytest.mark.parametrize(
    ("fault", "advice"),
    [
        (WRONG_KEY, "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        (Fault(403, "SignatureDoesNotMatch", "The request signature we calculated does not match."), "credentials"),
        (Fault(400, "ExpiredToken", "The provided token has expired."), "credentials"),
        (Fault(403, "AccessDenied", "Access Denied"), "may they list, read, write and delete there"),
    ],
)
def test_credentials_that_are_refused_are_named_with_what_to_do(
    s3: S3Store, proxy: S3Proxy, fault: Fault, advice: str
) -> None:
    store = ImageStore(s3.url)
    proxy.fail("PUT", fault)
    assert advice in refusal(store.check)
    uri = store.put(CONTENT, SHA256, "png")
    proxy.fail("HEAD", fault, times=2)
    assert advice in refusal(lambda: store.has(uri)) or fault.status == 400
    proxy.fail("HEAD", Fault(403))
    assert "credentials" in refusal(lambda: read_image(uri))


def test_a_refusal_is_never_of_one_input_so_that_no_job_fails_for_expired_credentials(
    s3: S3Store, proxy: S3Proxy
) -> None:
    inputs = InputStore(s3.url)
    inputs.put_image(CONTENT, SHA256, "png")
    uri = inputs.find_image(SHA256)
    assert uri is not None
    proxy.fail("GET", Fault(403, "AccessDenied", "Access Denied"))
    assert "credentials" in refusal(lambda: inputs.read_image(uri))


def test_missing_credentials_a_missing_bucket_and_a_wrong_endpoint_are_sentences(
    s3: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "does not exist; make the bucket, or mend its name" in refusal(ImageStore("s3://nobodys/x").check)
    assert "Invalid bucket name" in refusal(ImageStore("s3://b_UP!/x").check)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    forget_opened()
    assert "Unable to locate credentials; give AWS_ACCESS_KEY_ID" in refusal(ImageStore(s3.url).check)
    use_endpoint(monkeypatch, "store.example:9000")
    assert "AWS_ENDPOINT_URL is like https://" in refusal(ImageStore(s3.url).check)


def test_nobody_at_the_endpoint_is_one_sentence_wherever_it_is_noticed(
    s3: S3Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": {"retries": {"max_attempts": 0}}})
    use_endpoint(monkeypatch, "http://127.0.0.1:1")
    uri, inputs = f"{s3.url}/{SHA256[:2]}/{SHA256[2:4]}/{SHA256}.png", InputStore(s3.url)
    lora = tmp_path / "lora.safetensors"
    lora.write_bytes(CONTENT)
    for action in (
        lambda: ImageStore(s3.url).put(CONTENT, SHA256, "png"),
        lambda: ImageStore(s3.url).has(uri),
        lambda: read_image(uri),
        lambda: inputs.find_image(SHA256),
        lambda: inputs.put_lora(lora, SHA256),
        lambda: inputs.download(uri, tmp_path / "copy", SHA256),
        lambda: list(stored_files(s3.url).all()),
        lambda: put(target(s3.url), "key", CONTENT),
    ):
        assert "Could not connect to the endpoint URL" in refusal(action)


def test_a_lora_is_stored_whole_or_not_at_all(s3: S3Store, tmp_path: Path) -> None:
    inputs, lora = InputStore(s3.url), tmp_path / "lora.safetensors"
    lora.write_bytes(CONTENT)
    with pytest.raises(InputFileError, match="not those of sha256"):
        inputs.put_lora(lora, "0" * 64)
    assert keys(s3) == []
    inputs.put_lora(lora, SHA256)
    uri = inputs.find_lora(SHA256)
    assert uri is not None
    inputs.download(uri, tmp_path / "copy", SHA256)
    assert (tmp_path / "copy").read_bytes() == CONTENT


def test_an_input_is_never_stored_by_half_even_over_one_that_is_whole(s3: S3Store, tmp_path: Path) -> None:
    inputs, lora = InputStore(s3.url), tmp_path / "lora.safetensors"
    lora.write_bytes(CONTENT)
    inputs.put_lora(lora, SHA256)
    lora.write_bytes(b"changed meanwhile")
    with pytest.raises(InputFileError):
        inputs.put_lora(lora, SHA256)
    uri = inputs.find_lora(SHA256)
    assert uri is not None
    assert read_image(uri) == CONTENT


# A large file: s3fs sends 100 MiB and more in parts of 50.

LARGE_BYTES = 101 * 2**20
UPLOAD = f"""
import sys
from producer.exports.targets import target
with target(sys.argv[1]).writing("large.tar") as stream:
    stream.truncate({LARGE_BYTES})
"""


def test_a_large_object_goes_in_parts_and_is_whole_or_absent_also_after_a_kill(
    s3: S3Store, proxy: S3Proxy, tmp_path: Path
) -> None:
    environment = {"PATH": "/usr/bin", "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path), **s3_variables(proxy.url)}
    proxy.fail("PUT", SILENCE, times=3)
    process = subprocess.Popen([sys.executable, "-c", UPLOAD, s3.url], env=environment)
    try:
        assert proxy.asked.acquire(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert keys(s3) == []
    assert list(tmp_path.iterdir()) == []
    again = [sys.executable, "-W", "error", "-c", UPLOAD, s3.url]
    subprocess.run(again, env=environment | s3_variables(s3.server.url), check=True)
    info = fsspec.filesystem("s3").info(f"{s3.url}/large.tar")
    assert info["size"] == LARGE_BYTES
    assert info["ETag"].endswith('-3"'), "it has been put in three parts"


# The ledger's side.


@pytest.fixture
def farm(s3: S3Store, sqlite_url: str) -> Iterator[Database]:
    with closing(new_ledger(sqlite_url, TestClock())) as database:
        done_batch(database, s3.url, ({"width": 64, "height": 64},) * 3)
        yield database


def command(*arguments: str, s3: S3Store, sqlite_url: str, home: Path) -> tuple[int, str]:
    variables = {"NIGHTSHIFT_HOME": str(home), "NIGHTSHIFT_DATABASE_URL": sqlite_url, "NIGHTSHIFT_IMAGES_URL": s3.url}
    outcome = CliRunner().invoke(app, list(arguments), env=variables)
    if isinstance(outcome.exception, NightshiftError):
        return outcome.exception.exit_code, str(outcome.exception)
    return outcome.exit_code, outcome.output


def uris(database: Database) -> list[str]:
    with database.begin(read_only=True) as tx:
        return list(tx.execute(select(Image.uri).order_by(Image.id)).scalars())


def test_verify_reads_every_image_and_finds_one_that_is_gone_and_one_that_changed(
    farm: Database, s3: S3Store, sqlite_url: str, tmp_path: Path
) -> None:
    code, said = command("verify", s3=s3, sqlite_url=sqlite_url, home=tmp_path)
    assert code == 0, said
    gone, changed, _ = uris(farm)
    remote = fsspec.filesystem("s3")
    remote.rm_file(gone)
    remote.pipe_file(changed, remote.cat_file(changed)[:-1])
    code, said = command("verify", s3=s3, sqlite_url=sqlite_url, home=tmp_path)
    assert code == 1
    assert "is missing" in said
    assert "is cut off" in said


def test_gc_removes_what_nothing_records_and_leaves_the_rest(
    farm: Database, s3: S3Store, sqlite_url: str, tmp_path: Path
) -> None:
    orphan = ImageStore(s3.url).put(CONTENT, SHA256, "png")
    fsspec.filesystem("s3").pipe_file(f"{s3.url}/notes.txt", b"a stranger's")
    code, said = command("gc", s3=s3, sqlite_url=sqlite_url, home=tmp_path)
    assert code == 0, said
    assert SHA256 not in said, "it is younger than a day"
    files = stored_files(s3.url)
    assert _removed_tomorrow(files, orphan.removeprefix(f"{s3.url}/"))
    assert sorted(f"s3://{s3.bucket}/{key}" for key in keys(s3)) == sorted([*uris(farm), f"{s3.url}/notes.txt"])


def _removed_tomorrow(files: StoredFiles, key: str) -> bool:
    written = files.modified_at(key)
    assert written is not None
    assert not files.remove(key, written), "it was written no earlier than that"
    return files.remove(key, written.replace(year=written.year + 1))


def test_linking_asks_for_each_image_and_finds_those_that_are_there(farm: Database, s3: S3Store) -> None:
    fsspec.filesystem("s3").rm_file(uris(farm)[1])
    with StoredImages(s3.url) as stored:
        assert stored.lie_there(uris(farm)) == [True, False, True]


def test_a_store_whose_bucket_is_gone_is_said_once_and_not_for_each_image(
    farm: Database, s3: S3Store, sqlite_url: str, tmp_path: Path
) -> None:
    with farm.begin() as tx:
        for uri in uris(farm):
            tx.execute(update(Image).where(Image.uri == uri).values(uri=uri.replace(s3.bucket, "nobodys")))
    code, said = command("verify", "1", s3=s3, sqlite_url=sqlite_url, home=tmp_path)
    assert code == 3, said
    assert "s3://nobodys/farm/images is empty or not there" in said
