"""Linking jobs to images that exist, on a real ledger and real files."""

from pathlib import Path

import pytest
from sqlalchemy import select

from farm import batches, ledger, packs
from farm.database import Database
from farm.image_store import ImageStore
from farm.workers import known_fingerprint, note_fingerprint
from producer.questions.queries import results
from producer.submitting.linking import link_existing
from schemas.errors import SettingsError
from schemas.records import FinishedImage, StoredImage
from schemas.spec import JobSpec
from schemas.states import JobState
from schemas.tables import Image, Result
from tests.integration.ledger_farm import ENVIRONMENT, TestClock, claimed_pack, new_worker, staged, states

FINGERPRINT = "f" * 64


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(str(tmp_path / "images"))


def stored(store: ImageStore, job_id: int) -> StoredImage:
    sha256 = f"{job_id:064x}"
    return StoredImage(store.put(b"image", sha256, "png"), sha256, "b" * 64, 5, 64, 64, "png")


def new_batch(database: Database, numbers: range, store: ImageStore | None = None) -> tuple[int, int]:
    """Opened; returns its id, and how many of its jobs were linked."""
    batch_id = batches.create_batch(database, "cats", "tiny", 5)
    ledger.stage_jobs(database, batch_id, [staged(n) for n in numbers])
    num_linked = link_existing(database, batch_id, "tiny", store.url) if store else 0
    batches.open_batch(database, batch_id)
    return batch_id, num_linked


def render_all(database: Database, batch_id: int, store: ImageStore, definition: str | None = None) -> None:
    worker_id = new_worker(database, definition=definition)
    note_fingerprint(database, worker_id, FINGERPRINT)
    pack = claimed_pack(database, batch_id, worker_id, 100)
    packs.begin_rendering(database, pack.id, worker_id)
    digests = {job.id: JobSpec.from_json(job.spec).digest for job in pack.jobs}
    images = [
        FinishedImage(job_id, stored(store, job_id), digest, FINGERPRINT, {"handoff": "none"}, 1, 1.0, 0.1)
        for job_id, digest in digests.items()
    ]
    ledger.finish_jobs(database, pack, ENVIRONMENT, images)


def test_a_manifest_with_rows_added_renders_what_is_missing(database: Database, store: ImageStore) -> None:
    first, _ = new_batch(database, range(1, 5))
    render_all(database, first, store)
    second, num_linked = new_batch(database, range(1, 8), store)
    assert num_linked == 4
    assert states(database, second) == {JobState.DONE: 4, JobState.PENDING: 3}
    ours, theirs = ([row.uri for row in results(database, batch_id)] for batch_id in (second, first))
    assert ours == theirs


def test_a_linked_result_says_how_the_image_was_made_and_that_it_cost_nothing(
    database: Database, store: ImageStore
) -> None:
    render_all(database, new_batch(database, range(1, 2))[0], store)
    second, _ = new_batch(database, range(1, 2), store)
    (row,) = results(database, second)
    assert (row.provenance, row.environment_digest) == ({"handoff": "none"}, ENVIRONMENT.digest)
    assert (row.attempt, row.render_seconds, row.finish_seconds) == (0, 0.0, 0.0)
    with database.begin(read_only=True) as tx:
        assert len(tx.execute(select(Result)).all()) == 2
        assert len(tx.execute(select(Image)).all()) == 1


def test_nothing_is_linked_while_the_weights_of_the_pair_are_unknown_or_others(
    database: Database, store: ImageStore, clock: TestClock
) -> None:
    render_all(database, new_batch(database, range(1, 3))[0], store)
    clock.advance(1)
    worker_id = new_worker(database)
    note_fingerprint(database, worker_id, "e" * 64)
    assert new_batch(database, range(1, 3), store)[1] == 0


def test_a_pair_that_was_changed_is_linked_to_nothing_until_its_weights_are_known(
    database: Database, store: ImageStore, clock: TestClock
) -> None:
    render_all(database, new_batch(database, range(1, 3))[0], store, "a" * 64)
    clock.advance(1)
    new_worker(database, definition="a" * 64)  # started again, and loading still
    assert known_fingerprint(database, "tiny") == FINGERPRINT
    assert new_batch(database, range(1, 3), store)[1] == 2
    clock.advance(1)
    changed = new_worker(database, definition="b" * 64)
    assert known_fingerprint(database, "tiny") is None
    assert new_batch(database, range(1, 3), store)[1] == 0
    note_fingerprint(database, changed, "e" * 64)
    clock.advance(1)
    new_worker(database, definition="b" * 64)
    assert known_fingerprint(database, "tiny") == "e" * 64
    clock.advance(1)
    new_worker(database, definition="a" * 64)  # changed back
    assert new_batch(database, range(1, 3), store)[1] == 2


def test_where_a_submitter_defines_the_pair_otherwise_nothing_is_linked(database: Database, store: ImageStore) -> None:
    render_all(database, new_batch(database, range(1, 3))[0], store, "a" * 64)
    assert [known_fingerprint(database, "tiny", one) for one in ("a" * 64, "b" * 64)] == [FINGERPRINT, None]
    batch_id = batches.create_batch(database, "cats", "tiny", 5)
    ledger.stage_jobs(database, batch_id, [staged(1)])
    assert link_existing(database, batch_id, "tiny", store.url, "b" * 64) == 0
    assert link_existing(database, batch_id, "tiny", store.url, "a" * 64) == 1


def test_workers_of_before_definitions_were_noted_count_until_the_pair_is_changed(
    database: Database, store: ImageStore, clock: TestClock
) -> None:
    render_all(database, new_batch(database, range(1, 3))[0], store)
    for definition, fingerprint in (("a", FINGERPRINT), ("b", None), ("a", None)):
        clock.advance(1)
        new_worker(database, definition=definition * 64)
        assert known_fingerprint(database, "tiny") == fingerprint


def test_an_image_that_is_gone_or_in_another_store_is_rendered_again(
    database: Database, store: ImageStore, tmp_path: Path
) -> None:
    first, _ = new_batch(database, range(1, 4))
    render_all(database, first, store)
    Path(next(iter(results(database, first))).uri.removeprefix("file://")).unlink()
    assert new_batch(database, range(1, 4), store)[1] == 2
    assert new_batch(database, range(1, 4), ImageStore(str(tmp_path / "elsewhere")))[1] == 0


def test_a_batch_that_is_discarded_takes_its_links_along_and_no_image(database: Database, store: ImageStore) -> None:
    first, _ = new_batch(database, range(1, 3))
    render_all(database, first, store)
    batch_id = batches.create_batch(database, "cats", "tiny", 5)
    ledger.stage_jobs(database, batch_id, [staged(1), staged(2)])
    assert link_existing(database, batch_id, "tiny", store.url) == 2
    batches.discard_batch(database, batch_id)
    assert len(list(results(database, first))) == 2
    with database.begin(read_only=True) as tx:
        assert len(tx.execute(select(Result)).all()) == 2


def test_linking_twice_counts_once(database: Database, store: ImageStore) -> None:
    render_all(database, new_batch(database, range(1, 3))[0], store)
    batch_id = batches.create_batch(database, "cats", "tiny", 5)
    ledger.stage_jobs(database, batch_id, [staged(1), staged(2)])
    assert link_existing(database, batch_id, "tiny", store.url) == 2
    assert link_existing(database, batch_id, "tiny", store.url) == 0
    assert states(database, batch_id) == {JobState.DONE: 2}


def test_a_producer_without_the_stores_package_submits_what_is_new(database: Database, store: ImageStore) -> None:
    batch_id = batches.create_batch(database, "cats", "tiny", 5)
    ledger.stage_jobs(database, batch_id, [staged(1)])
    assert link_existing(database, batch_id, "tiny", "nostore://images") == 0
    render_all(database, new_batch(database, range(1, 2))[0], store)
    with pytest.raises(SettingsError, match="images_url nostore"):
        link_existing(database, batch_id, "tiny", "nostore://images")
