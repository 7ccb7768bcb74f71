"""`nightshift gc` on real ledgers and files: it removes what it says, and `verify` is content."""

import hashlib
import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from typer.testing import CliRunner

from farm import batches, ledger
from farm.database import Database
from farm.discarding import mark_discarded
from farm.image_store import ImageStore
from farm.inputs import InputStore
from nightshift import app
from producer.questions.queries import batch_summary
from producer.upkeep.finding import Finding
from producer.upkeep.garbage import Garbage, GarbageCounts
from producer.upkeep.verification import Verification
from schemas.errors import InputError, NotFoundError
from schemas.settings import Settings
from schemas.tables import Batch, Image, Job, Pack, Result
from tests.integration.ledger_farm import TestClock, new_ledger
from tests.integration.stored_farm import done_batch, image_path, job_spec, new_batch, set_time

TWO_DAYS = timedelta(days=2)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


def collected(database: Database, settings: Settings, *, removes: bool) -> tuple[list[Finding], GarbageCounts]:
    garbage = Garbage(database, settings, removes=removes)
    return list(garbage.unrecorded()), garbage.counts


def without_batch(database: Database, settings: Settings, batch_id: int, *, removes: bool = True) -> GarbageCounts:
    garbage = Garbage(database, settings, removes=removes)
    list(garbage.of_batch(batch_summary(database, batch_id)))
    return garbage.counts


def wrong(database: Database, settings: Settings) -> list[Finding]:
    """What `verify` says."""
    findings = Verification(database, settings, lambda _counts: None).of_everything(clean=False)
    return [finding for finding in findings if not finding.is_note]


def files(settings: Settings) -> set[Path]:
    return {path for name in ("images", "invalid") for path in (settings.home / name).rglob("*") if path.is_file()}


def make_old(settings: Settings, clock: TestClock) -> None:
    for path in files(settings):
        set_time(path, clock.now - TWO_DAYS)


def num_rows(database: Database, table: Any) -> int:
    with database.begin(read_only=True) as tx:
        return int(tx.execute(select(func.count()).select_from(table)).scalar_one())


def stored_input(settings: Settings, content: bytes) -> Path:
    sha256 = hashlib.sha256(content).hexdigest()
    InputStore(settings.images_url).put_image(content, sha256, "png")
    return settings.home / "images" / "inputs" / sha256[:2] / sha256[2:4] / f"{sha256}.png"


def litter(database: Database, settings: Settings, clock: TestClock) -> tuple[set[Path], set[Path]]:
    """A farm after a few bad nights: what nobody needs, and what somebody does."""
    batch_id = done_batch(database, settings.images_url, ({}, {}))
    discarded = batches.create_batch(database, "none", "tiny", 5)
    batches.discard_batch(database, discarded)
    named, unnamed = stored_input(settings, b"named"), stored_input(settings, b"unnamed")
    new_batch(database, [job_spec(9, init_image=named.stem, strength=0.5)])
    content = b"an image without a row"
    sha256 = hashlib.sha256(content).hexdigest()
    ImageStore(settings.images_url).put(content, sha256, "png")
    orphan = settings.home / "images" / sha256[:2] / sha256[2:4] / f"{sha256}.png"
    recorded = image_path(database, 1, batch_id)
    leftover = recorded.with_name(f".{recorded.name}.0123abcd.tmp")
    leftover.write_bytes(b"half")
    lists = [settings.home / "invalid" / f"batch-{number}.txt" for number in (batch_id, discarded, 7)]
    lists[0].parent.mkdir()
    for path in lists:
        path.write_text("line 3: no prompt\n")
    make_old(settings, clock)
    clock.advance(1)  # past the moment in which batches were accepted
    garbage = {unnamed, orphan, leftover, lists[1]}
    return garbage, files(settings) - garbage


def test_without_yes_everything_is_listed_with_its_reason_and_stays(
    database: Database, settings: Settings, clock: TestClock
) -> None:
    garbage, needed = litter(database, settings, clock)
    findings, counts = collected(database, settings, removes=False)
    told = sorted(finding.sentence.partition(" (")[0] for finding in findings if not finding.is_note)
    assert told == [
        "belongs to no job",
        "is a temporary file of a process that died",
        "is an input that no job names",
        "lists invalid rows of a batch that is gone",
    ]
    assert all(finding.sentence.endswith("; --yes removes it") for finding in findings if not finding.is_note)
    assert (counts.num_files, counts.num_bytes) == (4, sum(path.stat().st_size for path in garbage))
    assert counts.num_removed == 0
    assert files(settings) == garbage | needed


def test_with_yes_it_goes_and_nothing_else_does(database: Database, settings: Settings, clock: TestClock) -> None:
    garbage, needed = litter(database, settings, clock)
    num_bytes = sum(path.stat().st_size for path in garbage)
    findings, counts = collected(database, settings, removes=True)
    assert [finding for finding in findings if not finding.is_note] == []
    assert (counts.num_removed, counts.removed_bytes) == (4, num_bytes)
    assert files(settings) == needed
    assert wrong(database, settings) == []
    assert collected(database, settings, removes=True)[1].num_files == 0


def test_what_is_younger_than_a_day_stays(database: Database, settings: Settings, clock: TestClock) -> None:
    garbage, _ = litter(database, settings, clock)
    for path in garbage:
        set_time(path, clock.now - timedelta(hours=23))
    assert collected(database, settings, removes=True)[1].num_files == 0
    assert all(path.exists() for path in garbage)


def test_an_input_stays_while_a_batch_that_may_name_it_is_submitted(
    database: Database, settings: Settings, clock: TestClock
) -> None:
    litter(database, settings, clock)
    unnamed = stored_input(settings, b"unnamed")
    set_time(unnamed, clock.now - TWO_DAYS)
    staging = batches.create_batch(database, "cats", "tiny", 5)
    collected(database, settings, removes=True)
    assert unnamed.exists()
    batches.discard_batch(database, staging)
    collected(database, settings, removes=True)
    assert not unnamed.exists()


# --- a batch --------------------------------------------------------------------------------------------------------


def two_batches(database: Database, settings: Settings, clock: TestClock) -> tuple[int, int]:
    """The second one's two jobs are linked to images of the first one's four."""
    first = done_batch(database, settings.images_url)
    second = new_batch(database, [job_spec(1), job_spec(2)])
    with database.begin(read_only=True) as tx:
        jobs = tx.execute(select(Job.id).where(Job.batch_id == second).order_by(Job.id)).scalars().all()
        images = (
            tx.execute(
                select(Result.image_id).join(Job, Job.id == Result.job_id).where(Job.number < 3).order_by(Job.number)
            )
            .scalars()
            .all()
        )
    ledger.link_jobs(database, second, dict(zip(jobs, images, strict=True)))
    make_old(settings, clock)
    clock.advance(1)
    return first, second


def test_a_batch_is_dropped_only_with_yes(database: Database, settings: Settings, clock: TestClock) -> None:
    batch_id = done_batch(database, settings.images_url)
    make_old(settings, clock)
    clock.advance(1)
    before = files(settings)
    counts = without_batch(database, settings, batch_id, removes=False)
    assert (counts.num_jobs, counts.num_files) == (4, 4)
    assert counts.num_bytes == sum(path.stat().st_size for path in before)
    assert (files(settings), num_rows(database, Job)) == (before, 4)
    assert collected(database, settings, removes=True)[1].num_files == 0  # recorded images are no garbage
    counts = without_batch(database, settings, batch_id)
    assert (counts.num_jobs, counts.num_removed, counts.num_kept) == (4, 4, 0)
    assert files(settings) == set()
    assert [num_rows(database, table) for table in (Batch, Job, Pack, Result, Image)] == [0] * 5
    assert wrong(database, settings) == []
    with pytest.raises(NotFoundError):
        batch_summary(database, batch_id)


def test_images_that_other_jobs_are_linked_to_stay(database: Database, settings: Settings, clock: TestClock) -> None:
    first, second = two_batches(database, settings, clock)
    shared = {image_path(database, number, second) for number in (1, 2)}
    counts = without_batch(database, settings, first, removes=False)
    assert counts.num_files == 2
    assert without_batch(database, settings, first).num_removed == 2
    assert files(settings) == shared
    assert wrong(database, settings) == []
    assert batch_summary(database, first).num_jobs == 0  # its packs made the others' images
    without_batch(database, settings, second)
    assert files(settings) == set()
    without_batch(database, settings, first)
    assert num_rows(database, Batch) == num_rows(database, Pack) == 0
    assert wrong(database, settings) == []


def test_files_younger_than_a_day_are_left_for_later(database: Database, settings: Settings, clock: TestClock) -> None:
    keeper = done_batch(database, settings.images_url, ({},))
    batch_id = done_batch(database, settings.images_url, ({"width": 64}, {"width": 128}))
    young = image_path(database, 1, batch_id)
    make_old(settings, clock)
    set_time(young, clock.now)
    clock.advance(1)
    counts = without_batch(database, settings, batch_id)
    assert (counts.num_removed, counts.num_kept) == (1, 1)
    assert files(settings) == {young, image_path(database, 1, keeper)}
    assert wrong(database, settings) == []
    clock.advance(2 * 86_400)
    assert collected(database, settings, removes=True)[1].num_removed == 1
    assert not young.exists()


def test_an_image_that_is_the_input_of_a_job_stays(database: Database, settings: Settings, clock: TestClock) -> None:
    batch_id = done_batch(database, settings.images_url, ({}, {}))
    picture = image_path(database, 1, batch_id)
    new_batch(database, [job_spec(9, init_image=picture.stem, strength=0.5)])
    make_old(settings, clock)
    clock.advance(1)
    without_batch(database, settings, batch_id)
    assert files(settings) == {picture}
    assert wrong(database, settings) == []


@pytest.mark.parametrize("removes", [True, False], ids=["with-yes", "without"])
def test_a_batch_that_goes_on_is_not_dropped_nor_one_beside_a_submit(
    database: Database, settings: Settings, clock: TestClock, removes: bool
) -> None:
    batch_id = done_batch(database, settings.images_url, ({},))
    going_on = new_batch(database, [job_spec(7)])
    with pytest.raises(InputError, match="has not ended; `nightshift cancel 2` ends it"):
        without_batch(database, settings, going_on, removes=removes)
    staging = batches.create_batch(database, "cats", "tiny", 5)
    with pytest.raises(InputError, match="a batch is being submitted"):
        without_batch(database, settings, batch_id, removes=removes)
    with pytest.raises(InputError, match="has not ended"):
        without_batch(database, settings, staging, removes=removes)
    mark_discarded(database, staging)  # its rows may be linked to these images for some time yet
    with pytest.raises(InputError, match="a batch is being submitted"):
        without_batch(database, settings, batch_id, removes=removes)
    assert num_rows(database, Job) == 2
    assert len(files(settings)) == 1


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_command_lists_then_removes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path))
    settings = Settings(home=tmp_path)
    with closing(new_ledger(settings.database_url)) as database:
        done_batch(database, settings.images_url, ({}, {}))
        recorded = image_path(database, 1)
    leftover = recorded.with_name(f".{recorded.name}.0123abcd.tmp")
    leftover.write_bytes(b"half")
    for path in files(settings):
        set_time(path, datetime.now(UTC) - TWO_DAYS)

    def gc(*arguments: str) -> list[str]:
        said = CliRunner().invoke(app, ["gc", *arguments])
        assert said.exit_code == 0, said.exception
        return said.stdout.splitlines()

    name = leftover.relative_to(tmp_path / "images")
    assert gc() == [
        f"file {name}: is a temporary file of a process that died (4 bytes); --yes removes it",
        "can be removed: 1 files, 4 bytes; nothing was",
    ]
    assert json.loads(gc("--json")[0])["code"] == "orphan"
    assert leftover.exists()
    assert gc("--yes") == ["removed: 1 files, 4 bytes"]
    assert json.loads(gc("--json")[-1]) == {
        "num_files": 0, "num_bytes": 0, "num_removed": 0, "removed_bytes": 0, "num_jobs": 0, "num_kept": 0,
        "num_recent": 0,
    }  # fmt: skip
    assert gc("--batch", "cats", "--yes") == ["removed: 2 jobs, 2 files"]
    assert files(settings) == set()
