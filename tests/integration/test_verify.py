"""`nightshift verify` on real ledgers and real files: each damage is found, and nothing else is."""

import hashlib
import io
import sys
from datetime import timedelta
from pathlib import Path

import fsspec
import pytest
from PIL import Image as Pillow
from sqlalchemy import delete, insert, select, update

from farm import batches, ledger
from farm.database import Database
from farm.image_store import ImageStore
from farm.inputs import InputStore
from farm.leases import DISPATCHER, hold_lease, ledger_time
from producer.upkeep import verified_rows
from producer.upkeep.finding import Finding
from producer.upkeep.verification import Counts, Verification
from schemas.errors import StorageError
from schemas.settings import Settings
from schemas.states import JobState, PackState
from schemas.tables import Batch, Image, Job, Pack, Result
from tests.integration.ledger_farm import LEASE_SECONDS, TestClock, claimed_pack, new_worker, open_batch, release_pack
from tests.integration.stored_farm import (
    KINDS,
    PROVENANCE,
    change_image,
    change_job,
    change_result,
    done_batch,
    image_path,
    job_spec,
    new_batch,
    set_time,
)

TWO_DAYS = timedelta(days=2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The image store's, with a blank in its name."""
    return tmp_path / "my images"


def verified(database: Database, images_url: str | Path, batch_id: int | None = None, *, clean: bool = False) -> "Seen":
    verification = Verification(database, Settings(images_url=str(images_url)), lambda _counts: None)
    findings = verification.of_everything(clean=clean) if batch_id is None else verification.of_batch(batch_id)
    return Seen(list(findings), verification.counts)


class Seen:
    """What a verification found."""

    def __init__(self, findings: list[Finding], counts: Counts) -> None:
        self.counts = counts
        self.all = findings
        self.wrong = sorted((finding.subject, finding.code) for finding in findings if not finding.is_note)
        self.notes = sorted((finding.subject, finding.code) for finding in findings if finding.is_note)
        assert counts.num_findings == len(self.wrong)


def count(database: Database, batch_id: int, **changes: int) -> None:
    """Moves the batch's counters along with states that a test writes by hand."""
    moved = {f"num_{state}": getattr(Batch, f"num_{state}") + change for state, change in changes.items()}
    with database.begin() as tx:
        tx.execute(update(Batch).where(Batch.id == batch_id).values(moved))


def test_a_farm_in_the_midst_of_its_work_is_found_sound(database: Database, folder: Path) -> None:
    first = done_batch(database, str(folder), KINDS)
    worker_id, batch_id = new_worker(database), new_batch(database, [job_spec(n) for n in range(20, 26)])
    claimed_pack(database, batch_id, worker_id, size=2)
    assert release_pack(database, batch_id, 2)
    canceled = open_batch(database)
    batches.cancel_batch(database, canceled)
    ledger.sweep_canceled(database, canceled)
    seen = verified(database, folder)
    assert (seen.wrong, seen.notes) == ([], [])
    assert (seen.counts.num_jobs, seen.counts.num_images) == (5 + 6 + 4, 5)
    assert seen.counts.num_bytes == sum(path.stat().st_size for path in folder.rglob("*.*"))
    alone = verified(database, folder, first)
    assert (alone.wrong, alone.notes, alone.counts.num_jobs, alone.counts.num_images) == ([], [], 5, 5)


def test_every_damage_of_a_file_is_found_and_nothing_else(on_sqlite: Database, folder: Path) -> None:
    done_batch(on_sqlite, str(folder), [{}] * 9 + list(KINDS))
    paths = {number: image_path(on_sqlite, number) for number in range(1, 9)}
    paths[1].unlink()
    paths[2].write_bytes(paths[2].read_bytes()[:-1])
    paths[3].write_bytes(paths[3].read_bytes() + b"\n")
    content = bytearray(paths[4].read_bytes())
    content[len(content) // 2] ^= 1
    paths[4].write_bytes(content)
    paths[5].unlink()
    paths[5].mkdir()
    change_image(on_sqlite, 6, width=255)
    change_image(on_sqlite, 7, pixel_sha256="0" * 64)
    change_image(on_sqlite, 8, format="jpeg")
    seen = verified(on_sqlite, folder)
    expected = ["missing", "size", "size", "sha256", "unreadable", "dimensions", "pixels", "undecodable"]
    assert seen.wrong == [(f"job 1/{number}", code) for number, code in enumerate(expected, 1)]
    assert seen.notes == [(f"file {paths[5].relative_to(folder)}", "foreign")]
    assert seen.counts.num_images == 14


def test_pixels_and_watermark_that_are_not_the_recorded_ones_are_found_though_the_hash_is_right(
    on_sqlite: Database, folder: Path
) -> None:
    done_batch(on_sqlite, str(folder), [{}] * 3)
    other_pixels = io.BytesIO()
    with Pillow.open(image_path(on_sqlite, 1)) as picture:
        picture.putpixel((9, 9), tuple(value ^ 1 for value in picture.getpixel((9, 9))))
        picture.save(other_pixels, "PNG")
    for number, content in ((1, other_pixels.getvalue()), (2, b"no picture at all")):
        sha256 = hashlib.sha256(content).hexdigest()
        image_path(on_sqlite, number).unlink()
        uri = ImageStore(str(folder)).put(content, sha256, "png")
        change_image(on_sqlite, number, uri=uri, sha256=sha256, size_bytes=len(content))
    with on_sqlite.begin(read_only=True) as tx:
        provenance = tx.execute(select(Result.provenance).where(Result.job_id == 3)).scalar_one()
    assert provenance["watermark_bits"] > 40
    change_result(on_sqlite, 3, provenance={**provenance, "watermark_bits": provenance["watermark_bits"] - 1})
    seen = verified(on_sqlite, folder)
    assert seen.wrong == [("job 1/1", "pixels"), ("job 1/2", "undecodable"), ("job 1/3", "watermark")]
    assert seen.notes == []


def test_a_row_that_names_no_place_of_the_store_is_found_and_nothing_is_read(on_sqlite: Database, folder: Path) -> None:
    done_batch(on_sqlite, str(folder), [{}] * 3)
    change_image(on_sqlite, 1, uri="/etc/passwd")
    change_image(on_sqlite, 2, sha256="0" * 64)
    change_result(on_sqlite, 3, provenance={"watermark_bits": 48})
    assert verified(on_sqlite, folder, 1).wrong == [
        ("job 1/1", "image_row"), ("job 1/2", "image_row"), ("job 1/3", "provenance"),
    ]  # fmt: skip


def test_every_state_that_cannot_be_is_found_and_nothing_else(database: Database, folder: Path) -> None:
    done_batch(database, str(folder))
    batch_id = new_batch(database, [job_spec(number) for number in range(20, 29)])
    worker_id = new_worker(database)
    running, alone = (claimed_pack(database, batch_id, worker_id, size=size).id for size in (2, 1))
    queued = release_pack(database, batch_id, 1)
    assert queued is not None
    with database.begin() as tx:
        tx.execute(update(Pack).where(Pack.id == alone).values(state=PackState.FINISHED))
        unused = tx.execute(select(Result.image_id).where(Result.job_id == 1)).scalar_one()
        tx.execute(delete(Result).where(Result.job_id == 1))
    change_job(database, 2, state="failed")
    change_job(database, 3, spec=job_spec(30).canonical)
    change_image(database, 4, spec_digest="0" * 64)
    change_job(database, 5, batch_id, state="bogus")
    change_job(database, 6, batch_id, pack_id=running)
    change_job(database, 7, batch_id, state=JobState.QUEUED)
    change_job(database, 8, batch_id, state=JobState.CANCELED, pack_id=running)
    change_job(database, 9, batch_id, state=JobState.DONE, pack_id=queued.id)
    count(database, 1, done=-1, failed=1)
    count(database, batch_id, running=-1, pending=-4, queued=2, canceled=1, done=1)
    seen = verified(database, folder)
    assert seen.wrong == [
        (f"image {unused}", "unused_image"),
        ("job 1/1", "no_result"),
        ("job 1/2", "result"),
        ("job 1/3", "spec"),
        ("job 1/4", "image_spec"),
        (f"job {batch_id}/3", "job_state"),  # queued in a pack that has ended
        (f"job {batch_id}/5", "job_state"),
        (f"job {batch_id}/6", "job_state"),  # pending in a pack
        (f"job {batch_id}/7", "job_state"),  # queued in no pack
        (f"job {batch_id}/8", "job_state"),  # canceled in a running pack
        (f"job {batch_id}/9", "job_state"),  # done in a queued pack
        (f"job {batch_id}/9", "no_result"),
    ]
    assert seen.notes == []


def test_a_result_whose_environment_worker_or_pack_is_gone_is_found(database: Database, folder: Path) -> None:
    """No foreign key would say so."""
    batch_id = done_batch(database, str(folder), [{}] * 4)
    change_result(database, 1, environment_digest="0" * 64)
    change_result(database, 2, worker_id="0" * 32)
    change_result(database, 3, worker_id="0" * 32, pack_id="0" * 32)
    seen = verified(database, folder)
    assert seen.wrong == [(f"job {batch_id}/{number}", "no_row") for number in (1, 2, 3)]
    assert "there is no row of its result's worker and pack" in seen.all[2].sentence


def test_a_job_whose_pack_is_gone_and_a_result_whose_job_is_gone_are_found(database: Database, folder: Path) -> None:
    """No foreign key would say so."""
    batch_id = done_batch(database, str(folder), [{}] * 3)
    with database.begin() as tx:
        job_ids = tx.execute(select(Job.id).order_by(Job.number)).scalars().all()
        tx.execute(update(Job).where(Job.id == job_ids[1]).values(pack_id="0" * 32))
        tx.execute(delete(Job).where(Job.id == job_ids[2]))
        tx.execute(update(Batch).values(num_done=2))
    seen = verified(database, folder)
    assert seen.wrong == [(f"job {batch_id}/2", "job_state"), (f"result {job_ids[2]}", "no_job")]
    assert f"is done, and there is no pack {'0' * 32}" in seen.all[0].sentence


def test_batches_and_packs_in_no_state_and_wrong_counters_are_found(database: Database, folder: Path) -> None:
    batch_ids = [open_batch(database, 1) for _ in range(3)]
    worker_id = new_worker(database)
    bogus, empty = (claimed_pack(database, batch_id, worker_id).id for batch_id in batch_ids[:2])
    with database.begin() as tx:
        tx.execute(update(Pack).where(Pack.id == bogus).values(state="bogus"))
        tx.execute(update(Batch).where(Batch.id == batch_ids[0]).values(state="bogus"))
        tx.execute(update(Job).where(Job.batch_id == batch_ids[1]).values(state=JobState.PENDING, pack_id=None))
    count(database, batch_ids[0], running=-1, queued=1)
    count(database, batch_ids[1], running=-1, pending=1)
    count(database, batch_ids[2], pending=1, failed=2)
    seen = verified(database, folder)
    expected = [
        (f"batch {batch_ids[0]}", "batch_state"),
        (f"batch {batch_ids[2]}", "counters"),
        (f"batch {batch_ids[2]}", "counters"),
        (f"job {batch_ids[0]}/1", "job_state"),
        (f"pack {bogus} of batch {batch_ids[0]}", "pack_state"),
        (f"pack {empty} of batch {batch_ids[1]}", "empty_pack"),
    ]
    assert seen.wrong == sorted(expected)


def test_a_pack_that_nobody_took_back_is_found_unless_a_dispatcher_lives(
    database: Database, clock: TestClock, folder: Path
) -> None:
    batch_id = open_batch(database, 1)
    pack = claimed_pack(database, batch_id, new_worker(database))
    clock.advance(LEASE_SECONDS + 30)
    assert verified(database, folder).wrong == []  # a dispatcher that has just started waits as long
    clock.advance(LEASE_SECONDS)
    assert verified(database, folder).wrong == [(f"pack {pack.id} of batch {batch_id}", "lost_pack")]
    assert hold_lease(database, DISPATCHER, "somebody", 10)
    assert verified(database, folder).wrong == []


def test_what_a_killed_command_left_undone_is_noted_and_fails_nothing(database: Database, folder: Path) -> None:
    staging = batches.create_batch(database, "cats", "tiny", 5)
    canceled = open_batch(database)
    batches.cancel_batch(database, canceled)
    seen = verified(database, folder)
    assert (seen.wrong, seen.notes) == ([], [(f"batch {staging}", "staging"), (f"batch {canceled}", "unswept")])


def test_an_image_of_several_jobs_is_read_once_and_its_loss_told_once(database: Database, folder: Path) -> None:
    done_batch(database, str(folder), [{}])
    second = new_batch(database, [job_spec(n) for n in range(20, 22)])
    with database.begin() as tx:
        row = tx.execute(select(Result)).one()
        first_job = tx.execute(select(Job).where(Job.batch_id == 1)).one()
        for repeat, job in enumerate(tx.execute(select(Job).where(Job.batch_id == second)).all()):
            tx.execute(insert(Result).values({**row._mapping, "job_id": job.id}))
            same = {"spec": first_job.spec, "spec_digest": first_job.spec_digest, "repeat": repeat}
            tx.execute(update(Job).where(Job.id == job.id).values(state=JobState.DONE, **same))
    count(database, second, pending=-2, done=2)
    seen = verified(database, folder)
    assert (seen.wrong, seen.counts.num_jobs, seen.counts.num_images) == ([], 3, 1)
    assert verified(database, folder, second).counts.num_images == 1
    path = image_path(database, 1)
    path.write_bytes(b"")
    assert verified(database, folder).wrong == [("job 1/1 and 2 more with its image", "size")]
    assert verified(database, folder, second).wrong == [(f"job {second}/1 and 2 more with its image", "size")]


def test_a_batch_of_many_pages_is_looked_at_whole(database: Database, folder: Path) -> None:
    batch_id = open_batch(database, 2 * verified_rows._PAGE + 3)
    change_job(database, 2 * verified_rows._PAGE, batch_id, state="bogus")
    count(database, batch_id, pending=-1)
    seen = verified(database, folder)
    assert seen.wrong == [(f"job {batch_id}/{2 * verified_rows._PAGE}", "job_state")]
    assert seen.counts.num_jobs == 2 * verified_rows._PAGE + 3


def orphaned(folder: Path, mark: str, suffix: str = "png") -> Path:
    """A file as a worker leaves it that dies before the row."""
    content = f"an image {mark}".encode()
    sha256 = hashlib.sha256(content).hexdigest()
    ImageStore(str(folder)).put(content, sha256, suffix)
    return folder / sha256[:2] / sha256[2:4] / f"{sha256}.{suffix}"


def test_orphans_are_told_by_age_and_strangers_are_left_alone(
    database: Database, clock: TestClock, folder: Path, tmp_path: Path
) -> None:
    done_batch(database, str(folder))
    recorded = image_path(database, 1)
    old, young = orphaned(folder, "old"), orphaned(folder, "young")
    leftover = recorded.with_name(f".{recorded.name}.0123abcd.tmp")
    probe = folder / ".probe-0123456789abcdef"
    strangers = [folder / "notes.txt", old.with_name("notes.png"), folder / "inputs.txt"]
    for path in (leftover, probe, *strangers):
        path.write_bytes(b"12345")
    outside = tmp_path / "outside"
    outside.mkdir()
    precious = orphaned(outside, "precious")
    link, file_link = folder / "zz", old.with_name(f"{'0' * 64}.png")
    link.symlink_to(outside, target_is_directory=True)
    (folder / precious.relative_to(outside).parts[0]).symlink_to(outside / precious.relative_to(outside).parts[0])
    file_link.symlink_to(precious)
    for path in (recorded, old, leftover, probe, *strangers, precious):
        set_time(path, clock.now - TWO_DAYS)
    set_time(young, clock.now - timedelta(hours=23))

    foreign = [*strangers, link, file_link, folder / precious.relative_to(outside).parts[0]]
    seen = verified(database, folder)
    assert seen.wrong == sorted((f"file {path.relative_to(folder)}", "orphan") for path in (old, leftover, probe))
    told = [(f"file {path.relative_to(folder)}", "foreign") for path in foreign]
    assert seen.notes == sorted([*told, (folder.as_uri(), "recent")])
    assert (seen.counts.orphans.num_orphans, seen.counts.orphans.num_recent) == (3, 1)

    clock.advance(1)  # past the moment that the batch was accepted in
    cleaned = verified(database, folder, clean=True)
    assert (cleaned.wrong, cleaned.notes) == ([], seen.notes)
    assert (cleaned.counts.orphans.num_removed, cleaned.counts.orphans.removed_bytes) == (3, 12 + 5 + 5)
    assert not any(path.exists() for path in (old, leftover, probe))
    assert all(path.exists() for path in (recorded, young, precious, *foreign))
    assert verified(database, folder).wrong == []


def test_an_input_that_no_spec_names_is_an_orphan(database: Database, clock: TestClock, folder: Path) -> None:
    inputs, kept, orphans = InputStore(str(folder)), [], []
    for number, (suffix, named) in enumerate([("png", True), ("safetensors", True), ("png", False)]):
        content = f"input {number}".encode()
        sha256 = hashlib.sha256(content).hexdigest()
        inputs.put_image(content, sha256, suffix)
        path = folder / "inputs" / sha256[:2] / sha256[2:4] / f"{sha256}.{suffix}"
        set_time(path, clock.now - TWO_DAYS)
        (kept if named else orphans).append(path)
    lora = {"loras": [{"name": "fox", "sha256": kept[1].stem}]}
    done_batch(database, str(folder), [{}, {"init_image": kept[0].stem, "strength": 0.5}, lora])
    lost = orphaned(folder, "an image that has lost its row")  # and is an init image
    set_time(lost, clock.now - TWO_DAYS)
    new_batch(database, [job_spec(9, init_image=lost.stem, strength=0.5)])
    (orphan,) = orphans
    name = f"file {orphan.relative_to(folder)}"
    assert verified(database, folder).wrong == [(name, "orphan")]

    staging = batches.create_batch(database, "cats", "tiny", 5)
    clock.advance(1)
    assert verified(database, folder, clean=True).wrong == [(name, "orphan")]
    batches.open_batch(database, staging)
    assert verified(database, folder, clean=True).wrong == [(name, "orphan")]  # accepted at this very moment
    assert orphan.exists()
    clock.advance(1)
    assert verified(database, folder, clean=True).wrong == []
    assert not orphan.exists()
    assert all(path.exists() for path in (*kept, lost))


def test_a_ledger_that_knows_no_image_of_the_store_removes_nothing(
    on_sqlite: Database, clock: TestClock, folder: Path
) -> None:
    path = orphaned(folder, "of another farm")
    set_time(path, clock.now - TWO_DAYS)
    wanted = [(f"file {path.relative_to(folder)}", "orphan"), (folder.as_uri(), "other_ledger")]
    assert verified(on_sqlite, folder, clean=True).wrong == wanted
    assert path.exists()


def test_a_file_that_is_recorded_under_another_name_of_the_store_is_no_orphan(
    on_sqlite: Database, clock: TestClock, folder: Path, tmp_path: Path
) -> None:
    done_batch(on_sqlite, str(folder), [{}, {}])
    (tmp_path / "same").symlink_to(folder)
    uri = image_path(on_sqlite, 1).as_uri().replace("my%20images", "same")
    change_image(on_sqlite, 1, uri=uri)
    path = next(path for path in folder.rglob("*.png") if uri.endswith(path.name))
    for stored in folder.rglob("*.png"):
        set_time(stored, clock.now - TWO_DAYS)
    clock.advance(1)
    seen = verified(on_sqlite, folder, clean=True)
    assert (seen.wrong, seen.notes) == ([], [(f"file {path.relative_to(folder)}", "elsewhere")])
    assert path.exists()


def test_a_store_that_is_not_there_is_one_sentence(database: Database, folder: Path) -> None:
    done_batch(database, str(folder))
    folder.rename(folder.with_name("away"))
    with pytest.raises(StorageError, match="is empty or not there"):
        verified(database, folder)
    folder.mkdir()  # as a disk that is not mounted
    with pytest.raises(StorageError, match="is its disk mounted"):
        verified(database, folder, 1)


def test_a_store_that_is_no_folder_is_verified_and_cleaned_too(on_sqlite: Database, clock: TestClock) -> None:
    url, files = "memory://verify/images", fsspec.filesystem("memory")
    done_batch(on_sqlite, url, KINDS)
    store, inputs = ImageStore(url), InputStore(url)
    contents = [b"old", b"young", b"input"]
    old, young, unnamed = (hashlib.sha256(content).hexdigest() for content in contents)
    store.put(contents[0], old, "png")
    store.put(contents[1], young, "png")
    inputs.put_image(contents[2], unnamed, "png")
    files.pipe_file("/verify/images/notes/list.txt", b"a stranger's")
    files.pipe_file("/verify/images/.probe-0123456789abcdef", b"probe")
    keys = [f"{old[:2]}/{old[2:4]}/{old}.png", f"inputs/{unnamed[:2]}/{unnamed[2:4]}/{unnamed}.png",
            ".probe-0123456789abcdef"]  # fmt: skip
    now = ledger_time(on_sqlite)
    for key in keys:
        files.store[f"/verify/images/{key}"].modified = now - TWO_DAYS
    files.store[f"/verify/images/{young[:2]}/{young[2:4]}/{young}.png"].modified = now
    seen = verified(on_sqlite, url)
    assert seen.wrong == sorted((f"file {key}", "orphan") for key in keys)
    assert seen.notes == [("file notes", "foreign"), (url, "recent")]
    clock.advance(1)
    assert verified(on_sqlite, url, clean=True).wrong == []
    assert not any(files.exists(f"/verify/images/{key}") for key in keys)
    assert verified(on_sqlite, url).wrong == []
    with on_sqlite.begin(read_only=True) as tx:
        uri = tx.execute(select(Image.uri).join(Result).where(Result.job_id == 2)).scalar_one()
    files.rm(uri)
    assert verified(on_sqlite, url).wrong == [("job 1/2", "missing")]
    files.rm("/verify", recursive=True)
    with pytest.raises(StorageError, match="is empty or not there"):
        verified(on_sqlite, url)


def test_without_the_watermarks_libraries_all_else_is_verified(
    on_sqlite: Database, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done_batch(on_sqlite, str(folder))
    image_path(on_sqlite, 2).write_bytes(b"")
    change_result(on_sqlite, 3, provenance={**PROVENANCE.model_dump(mode="json"), "watermark_bits": 1})
    monkeypatch.delitem(sys.modules, "farm.watermark")
    monkeypatch.setitem(sys.modules, "cv2", None)
    seen = verified(on_sqlite, folder)
    assert (seen.wrong, seen.notes) == ([("job 1/2", "size")], [("watermarks", "unread")])


def test_what_sqlite_says_of_its_own_file_is_told(on_sqlite: Database, folder: Path) -> None:
    done_batch(on_sqlite, str(folder), [{}])
    with on_sqlite.engine.connect() as connection:
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
        connection.exec_driver_sql("DELETE FROM images")
        connection.exec_driver_sql("PRAGMA foreign_keys=ON")
        connection.exec_driver_sql("BEGIN")
    seen = verified(on_sqlite, folder)
    assert seen.wrong == [("job 1/1", "no_image"), ("ledger", "ledger")]
