"""Batches that have images in common, by the real dispatcher: each image is rendered once."""

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from sqlalchemy import select

from farm import ledger, packs
from farm.broker import Broker
from farm.database import Database
from farm.image_store import ImageStore
from farm.retries import Failure
from farm.workers import note_fingerprint, note_seen
from producer.dispatching.dispatcher import Dispatcher
from producer.manifests.manifest import Row
from producer.questions.outlook import outlook
from producer.questions.queries import batch_summary, queued_packs
from producer.submitting.submit import BatchRequest, submit
from schemas.records import ClaimedPack
from schemas.settings import Settings
from schemas.spec import JobSpec
from schemas.states import JobState
from schemas.tables import Image
from schemas.written_spec import SpecKind
from tests.integration.ledger_farm import ENVIRONMENT, TestClock, images_of, new_worker, states
from tests.integration.test_linking import stored

KIND = SpecKind(JobSpec.parse({"prompt": "cat", "seed": 0}))


@dataclass
class Night:
    """A farm of one worker, which renders no faster than it is told to."""

    database: Database
    dispatcher: Dispatcher
    store: ImageStore
    clock: TestClock
    worker_id: str
    rendered: Counter[str] = field(default_factory=Counter)

    def submit(self, numbers: range, **fields: object) -> int:
        rows = (Row(n, KIND.written("cat", n), 0, {}) for n in numbers)
        request = replace(BatchRequest("cats", "tiny", linked_in=self.store.url), **fields)
        return submit(self.database, rows, request).batch_id

    def render(self, most: int = 1_000, *, fails: bool = False) -> None:
        """So many images, or all that there are."""
        num = 0
        while num < most:
            self.clock.advance(1)
            note_seen(self.database, self.worker_id)
            self.dispatcher.tick()
            ids = queued_packs(self.database, "tiny")
            if not ids:
                return
            while ids and num < most:
                pack = self.claim(ids.pop(0))
                num += len(pack.jobs)
                self.end(pack, fails=fails)

    def claim(self, pack_id: str) -> ClaimedPack:
        pack = ledger.claim_pack(self.database, pack_id, self.worker_id, 3600)
        assert pack is not None
        packs.begin_rendering(self.database, pack.id, self.worker_id)
        return pack

    def end(self, pack: ClaimedPack, *, fails: bool = False) -> None:
        self.rendered.update(JobSpec.from_json(job.spec).digest for job in pack.jobs)
        if fails:
            refused = Failure("render", "it broke", retryable=False, is_of_the_job=True)
            ledger.fail_jobs(self.database, pack, [job.id for job in pack.jobs], refused, 3)
        else:
            images = [replace(one, image=stored(self.store, one.job_id)) for one in images_of(pack)]
            ledger.finish_jobs(self.database, pack, ENVIRONMENT, images)

    def waits(self, batch_id: int) -> str | None:
        return outlook(self.database, batch_summary(self.database, batch_id), "").waits


@pytest.fixture
def night(database: Database, broker: Broker, clock: TestClock, tmp_path: Path) -> Iterator[Night]:
    worker_id = new_worker(database)
    note_fingerprint(database, worker_id, "f" * 64)
    settings = Settings(home=tmp_path, pack_size=4)
    with closing(Dispatcher(database, broker, settings)) as dispatcher:
        yield Night(database, dispatcher, ImageStore(str(tmp_path / "images")), clock, worker_id)


def test_a_list_with_rows_added_while_the_first_goes_on_is_rendered_once(night: Night) -> None:
    first = night.submit(range(100))
    night.render(40)
    second = night.submit(range(105))
    assert night.waits(second) == f"batch {first} has the same images and goes first"
    assert night.waits(first) is None
    night.render(40)
    night.dispatcher.tick()
    assert states(night.database, second)[JobState.DONE] == 80  # as the first goes on
    night.render()
    assert set(night.rendered.values()) == {1}
    assert (states(night.database, first), states(night.database, second)) == ({"done": 100}, {"done": 105})
    with night.database.begin(read_only=True) as tx:
        assert len(tx.execute(select(Image)).all()) == 105
