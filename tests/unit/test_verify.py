"""What `nightshift verify` judges by, without a server: whose a file is, and whether rows can be so."""

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from farm.store_keys import is_folder_of_ours, store_key
from farm.stored_files import StoredFile, check_has_files, read_at_most, stored_files
from producer.upkeep.finding import Finding
from producer.upkeep.orphans import Known, input_sha256s, standing
from producer.upkeep.recorded_jobs import LivePack, RecordedJob, job_findings, pack_finding
from schemas.digest import sha256_hex
from schemas.errors import SettingsError, StorageError
from schemas.spec import JobSpec
from schemas.states import JobState, PackState

SHA256 = "abcd" + "0" * 60
KEY = f"ab/cd/{SHA256}.png"
NOW = datetime(2026, 11, 21, 22, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (KEY, "image"),
        (KEY.replace("png", "webp"), "image"),
        (KEY.replace("png", "jpg"), "image"),
        (f"inputs/{KEY}", "input"),
        (f"inputs/ab/cd/{SHA256}.safetensors", "input"),
        (f"ab/cd/.{SHA256}.png.0123abcd.tmp", "leftover"),
        (f"inputs/ab/cd/.{SHA256}.safetensors.0123abcd.tmp", "leftover"),
        (".probe-0123456789abcdef", "leftover"),
        ("..probe-0123456789abcdef.0123abcd.tmp", "leftover"),
        (f"ab/cd/{SHA256}.safetensors", "foreign"),
        (f"ab/cd/{SHA256}.gif", "foreign"),
        (f"ab/ce/{SHA256}.png", "foreign"),
        (f"AB/CD/{SHA256.upper()}.png", "foreign"),
        (f"{SHA256}.png", "foreign"),
        (f"other/{KEY}", "foreign"),
        (f"{KEY}\n", "foreign"),
        (f"ab/ce/.{SHA256}.png.0123abcd.tmp", "foreign"),
        (f"ab/cd/.{SHA256}.png.tmp", "foreign"),
        ("ab/.probe-0123456789abcdef", "foreign"),
        (".notes.txt.0123abcd.tmp", "foreign"),
        (".probe-mine", "foreign"),
        ("notes.txt", "foreign"),
        ("", "foreign"),
    ],
)
def test_only_what_nightshift_could_have_named_so_is_its_own(key: str, kind: str) -> None:
    assert store_key(key).kind == kind
    assert store_key(key).sha256 == (SHA256 if kind in ("image", "input") else None)


def test_only_nightshifts_own_folders_are_looked_into() -> None:
    assert all(map(is_folder_of_ours, ("ab", "ab/cd", "inputs", "inputs/ab", "inputs/ab/cd")))
    assert not any(map(is_folder_of_ours, ("", "abc", "AB", "ab/cd/ef", "inputs/x", "ab/inputs", "lost+found")))


def test_a_file_with_a_row_a_name_or_another_place_is_no_orphan() -> None:
    url, nothing = "file:///images", frozenset[str]()
    file, given = StoredFile(KEY, 9), StoredFile(f"inputs/{KEY}", 9)
    ours = frozenset({SHA256})
    assert standing(file, url, Known(nothing, nothing, nothing)) == "orphan"
    assert standing(file, url, Known({f"{url}/{KEY}"}, nothing, nothing)) == "recorded"
    assert standing(file, url, Known(nothing, ours, nothing)) == "elsewhere"
    assert standing(file, url, Known(nothing, nothing, ours)) == "recorded"
    assert standing(given, url, Known(nothing, nothing, ours)) == "recorded"
    assert standing(given, url, Known(nothing, ours, nothing)) == "orphan"
    assert standing(StoredFile(KEY, 9, is_file=False), url, Known(nothing, nothing, ours)) == "foreign"
    assert standing(StoredFile(f"ab/cd/.{SHA256}.png.0123abcd.tmp", 9), url, Known(nothing, ours, ours)) == "orphan"


def test_the_inputs_of_a_spec_are_those_that_it_names() -> None:
    lora, picture = "1" * 64, "2" * 64
    fields = {"prompt": f'"init_image":"{"3" * 64}"', "seed": 1, "init_image": picture, "strength": 0.5}
    spec = JobSpec.parse({**fields, "loras": [{"name": "fox", "sha256": lora}]})
    assert sorted(input_sha256s(spec.canonical)) == [lora, picture]
    assert input_sha256s(JobSpec.parse({"prompt": "a fox", "seed": 1}).canonical) == []


def job(state: str, pack_state: str | None = None, **fields: object) -> RecordedJob:
    spec = "{}"
    pack_id = None if pack_state is None else "f" * 32
    image_id, image_spec_digest = (1, sha256_hex(spec)) if state == JobState.DONE else (None, None)
    row = RecordedJob(1, 3, 17, state, spec, sha256_hex(spec), pack_id, pack_state, image_id, image_spec_digest)
    return replace(row, **fields)  # type: ignore[arg-type]


LEGAL = {
    JobState.PENDING: {None},
    JobState.QUEUED: {PackState.QUEUED, PackState.RUNNING},
    JobState.RUNNING: set(),  # no row says so: its pack's does
    JobState.DONE: {None, *PackState} - {PackState.QUEUED},
    JobState.FAILED: {None, *PackState} - {PackState.QUEUED},
    JobState.CANCELED: {None, *PackState} - {PackState.QUEUED, PackState.RUNNING},
}


@pytest.mark.parametrize("pack_state", [None, *PackState])
@pytest.mark.parametrize("state", JobState)
def test_a_job_and_its_pack_fit_together_or_the_job_is_named(state: JobState, pack_state: PackState | None) -> None:
    codes = [(finding.subject, finding.code) for finding in job_findings(job(state, pack_state))]
    assert codes == ([] if pack_state in LEGAL[state] else [("job 3/17", "job_state")])


def test_a_pack_in_hand_is_lost_by_time_alone() -> None:
    pack = LivePack("f" * 32, 3, PackState.RUNNING, NOW - timedelta(seconds=1), 2)
    lost = pack_finding(pack, NOW, dispatcher_lives=False)
    assert lost is not None
    assert "ran out 2026-11-21 21:59 UTC" in lost.sentence
    assert pack_finding(pack, NOW, dispatcher_lives=True) is None
    assert pack_finding(pack, NOW - timedelta(seconds=1), dispatcher_lives=False) is None
    assert pack_finding(replace(pack, state=PackState.QUEUED), NOW, dispatcher_lives=False) is None


def test_what_a_file_is_called_cannot_move_the_cursor() -> None:
    finding = Finding("file \x1b[2J\udcff", "foreign", "is a stranger's", is_note=True)
    assert finding.line == r"note: file \x1b[2J\udcff: is a stranger's"
    assert finding.as_json()["subject"] == r"file \x1b[2J\udcff"


def stored(folder: Path, content: bytes, age: timedelta) -> Path:
    path = folder / KEY
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, ((NOW - age).timestamp(),) * 2)
    return path


def test_a_file_that_is_written_again_is_not_removed(tmp_path: Path) -> None:
    path, files = stored(tmp_path, b"image", timedelta(hours=1)), stored_files(str(tmp_path))
    assert not files.remove(KEY, NOW - timedelta(days=1))
    assert path.read_bytes() == b"image"
    assert files.remove(KEY, NOW)
    assert not files.remove(KEY, NOW)
    assert list(files.all()) == []
    assert files.modified_at(KEY) is None


def test_nothing_is_removed_through_a_link_that_a_folder_has_become(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    path = stored(tmp_path / "elsewhere", b"precious", timedelta(days=9))
    (tmp_path / "images" / "ab").symlink_to(tmp_path / "elsewhere" / "ab")
    files = stored_files(str(tmp_path / "images"))
    assert not files.remove(KEY, NOW)
    assert path.read_bytes() == b"precious"
    assert [(file.key, file.is_file) for file in files.all()] == [("ab", False)]


def test_a_store_that_is_itself_a_link_is_looked_through(tmp_path: Path) -> None:
    stored(tmp_path / "disk", b"image", timedelta(days=9))
    (tmp_path / "images").symlink_to(tmp_path / "disk")
    files = stored_files(str(tmp_path / "images"))
    assert list(files.all()) == [StoredFile(KEY, 5)]
    assert files.remove(KEY, NOW)


def test_a_pipe_in_the_place_of_an_image_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / KEY
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    with pytest.raises(OSError, match="it is no file"):
        read_at_most(path.as_uri(), 9)


def test_no_more_of_a_file_is_read_than_is_asked_for(tmp_path: Path) -> None:
    path = stored(tmp_path, b"0123456789", timedelta(0))
    assert read_at_most(path.as_uri(), 4) == b"0123"


def test_a_store_is_there_if_anything_lies_in_it(tmp_path: Path) -> None:
    uri = (tmp_path / "images" / KEY).as_uri()
    with pytest.raises(StorageError, match="is empty or not there"):
        check_has_files(uri)
    (tmp_path / "images").mkdir()
    with pytest.raises(StorageError, match="is empty or not there"):
        check_has_files(uri)
    (tmp_path / "images" / "notes.txt").touch()
    check_has_files(uri)
    with pytest.raises(SettingsError, match="cannot be used"):
        check_has_files(f"gopher://images/{KEY}")
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="does not answer: Not a directory"):
        check_has_files((tmp_path / "file" / KEY).as_uri())


def test_a_store_like_s3_that_does_not_answer_is_one_sentence(unreachable_store: str) -> None:
    uri = f"{unreachable_store}/{KEY}"
    with pytest.raises(OSError, match="could not connect to the endpoint"):
        read_at_most(uri, 9)
    with pytest.raises(StorageError, match="unreachable://images does not answer: could not connect"):
        check_has_files(uri)
    with pytest.raises(StorageError, match="cannot look through the image store unreachable://images: could not"):
        list(stored_files(unreachable_store).all())
