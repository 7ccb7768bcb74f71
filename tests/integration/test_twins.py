"""Batches that have images in common, by the real dispatcher: each image is rendered once."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

import nightshift
from farm import batches, ledger, packs
from farm.broker import Broker
from farm.database import Database
from farm.image_store import ImageStore
from farm.retries import Failure
from farm.twins import note_linked
from farm.workers import note_fingerprint, note_seen
from producer import Client
from producer.dispatching.dispatcher import Dispatcher
from producer.manifests.manifest import Row
from producer.questions.following import follow
from producer.questions.outlook import outlook
from producer.questions.progress import status_line
from producer.questions.prospect import Prospects
from producer.questions.queries import batch_summary, queued_packs, results
from producer.questions.twin_batches import newest_image
from producer.submitting.submit import BatchRequest, submit
from producer.web.moment import moment
from schemas.records import ClaimedPack
from schemas.settings import Settings
from schemas.spec import JobSpec
from schemas.timing import Timing
from schemas.written_spec import SpecKind
from tests.integration.asked import asked_of
from tests.integration.ledger_farm import ENVIRONMENT, TestClock, images_of, new_worker, states
from tests.integration.test_linking import stored

#: that day ten past ten, in the other window
LATER = datetime(2026, 11, 22, 10, 10, tzinfo=UTC)
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
    #: of each pack, in order
    batches: list[int] = field(default_factory=list)

    def submit(self, numbers: range, **fields: object) -> int:
        self.clock.advance(1)
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
        self.batches.append(pack.batch_id)
        self.rendered.update(JobSpec.from_json(job.spec).digest for job in pack.jobs)
        if fails:
            refused = Failure("render", "it broke", retryable=False, is_of_the_job=True)
            ledger.fail_jobs(self.database, pack, [job.id for job in pack.jobs], refused, 3)
        else:
            images = [replace(one, image=stored(self.store, one.job_id)) for one in images_of(pack)]
            ledger.finish_jobs(self.database, pack, ENVIRONMENT, images)

    def waits(self, batch_id: int) -> str | None:
        return outlook(self.database, batch_summary(self.database, batch_id), Settings()).waits


@pytest.fixture
def nights(broker: Broker, clock: TestClock, tmp_path: Path) -> Iterator[Callable[[Database], Night]]:
    with ExitStack() as stack:

        def night(database: Database) -> Night:
            worker_id = new_worker(database)
            note_fingerprint(database, worker_id, "f" * 64)
            settings = Settings(home=tmp_path, pack_size=2, queued_packs_per_worker=2)
            dispatcher = stack.enter_context(closing(Dispatcher(database, broker, settings)))
            return Night(database, dispatcher, ImageStore(str(tmp_path / "images")), clock, worker_id)

        yield night


@pytest.fixture
def night(on_sqlite: Database, nights: Callable[[Database], Night]) -> Night:
    return nights(on_sqlite)


def test_a_list_with_rows_added_while_the_first_goes_on_is_rendered_once(
    database: Database, nights: Callable[[Database], Night]
) -> None:
    night = nights(database)
    first = night.submit(range(20))
    night.render(8)
    second = night.submit(range(23))
    assert states(database, second) == {"done": 8, "pending": 15}
    assert night.waits(second) == f"batch {first} has the same images and goes first"
    assert night.waits(first) is None
    night.render(8)
    night.dispatcher.tick()
    assert states(database, second) == {"done": 16, "pending": 7}  # while the first goes on
    night.render()
    assert Counter(night.rendered.values()) == {1: 23}
    assert (states(database, first), states(database, second)) == ({"done": 20}, {"done": 23})


def test_the_more_urgent_goes_first_but_not_beside_what_the_other_has_begun(night: Night) -> None:
    first = night.submit(range(8))
    night.render(2)
    begun = night.claim(queued_packs(night.database, "tiny")[0])
    second = night.submit(range(8), priority=9)
    assert night.waits(first) == f"batch {second} has the same images and goes first"
    assert night.waits(second) == f"batch {first} has the same images and goes first"
    night.end(begun)
    night.render()
    assert night.batches == [first, first, second, second]
    assert Counter(night.rendered.values()) == {1: 8}
    assert (states(night.database, first), states(night.database, second)) == ({"done": 8}, {"done": 8})


def test_what_was_canceled_or_failed_in_the_first_is_rendered_in_the_second(night: Night) -> None:
    first = night.submit(range(8))
    night.render(2)
    second = night.submit(range(8))
    night.render(2, fails=True)
    batches.cancel_batch(night.database, first)
    night.render()
    assert states(night.database, second) == {"done": 8}
    assert Counter(night.rendered.values()) == {1: 6, 2: 2}  # those that failed


def test_a_paused_first_one_holds_nobody_up_and_is_linked_when_it_goes_on(night: Night) -> None:
    first = night.submit(range(8))
    night.render(4)
    second = night.submit(range(10))
    batches.pause_batch(night.database, first)
    night.dispatcher.tick()
    assert night.waits(second) is None
    night.render()
    assert states(night.database, second) == {"done": 10}
    batches.resume_batch(night.database, first)
    night.render()
    assert states(night.database, first) == {"done": 8}
    assert Counter(night.rendered.values()) == {1: 10}


@pytest.mark.parametrize("timing", [Timing(window="10:00-11:00 UTC"), Timing(not_before=LATER)])
def test_a_first_one_that_may_not_begin_yet_holds_nobody_up(night: Night, timing: Timing) -> None:
    first = night.submit(range(4), timing=timing)
    second = night.submit(range(6))
    assert night.waits(second) is None
    night.render()
    assert (night.batches, states(night.database, second)) == ([second, second, second], {"done": 6})
    night.clock.now = LATER
    night.render()
    assert states(night.database, first) == {"done": 4}
    assert Counter(night.rendered.values()) == {1: 6}


def test_a_third_joins_those_that_share_nothing_with_each_other(night: Night) -> None:
    first, second = night.submit(range(2)), night.submit(range(2, 4))
    assert night.waits(second) is None
    third = night.submit(range(4))
    assert [night.waits(one) is None for one in (first, second, third)] == [True, False, False]
    night.render()
    assert Counter(night.rendered.values()) == {1: 4}


def test_who_shares_images_with_one_of_a_group_joins_all_of_it(night: Night) -> None:
    first, second, third = (night.submit(range(n, n + 8)) for n in (0, 4, 8))
    assert [night.waits(one) is None for one in (first, second, third)] == [True, False, False]
    night.render()
    assert night.batches == [*[first] * 4, *[second] * 2, *[third] * 2]
    assert Counter(night.rendered.values()) == {1: 16}


def test_a_paused_batch_is_a_twin_too(night: Night) -> None:
    first = night.submit(range(4))
    night.dispatcher.tick()
    batches.pause_batch(night.database, first)
    second = night.submit(range(6))
    night.render()
    batches.resume_batch(night.database, first)
    night.render()
    assert (states(night.database, first), states(night.database, second)) == ({"done": 4}, {"done": 6})
    assert Counter(night.rendered.values()) == {1: 6}


def test_what_is_rendered_anew_waits_for_nobody(night: Night) -> None:
    night.submit(range(2), linked_in=None)
    for linked_in in ("images", None):
        assert night.waits(night.submit(range(2), linked_in=linked_in)) is None


def test_a_twentieth_of_the_rows_makes_a_twin_and_less_does_not(night: Night) -> None:
    night.submit(range(1_000))
    assert night.waits(night.submit(range(991, 1_191))) is None
    assert night.waits(night.submit(range(3_000, 3_010))) is None
    assert night.waits(night.submit(range(990, 1_190))) is not None


def test_an_image_that_was_gone_when_it_was_asked_for_is_rendered_again(night: Night) -> None:
    first = night.submit(range(6))
    night.render(2)
    lost = next(iter(results(night.database, first)))
    Path(lost.uri.removeprefix("file://")).unlink()
    second = night.submit(range(6))
    night.render()
    assert states(night.database, second) == {"done": 6}
    assert night.rendered == {**dict.fromkeys(night.rendered, 1), lost.spec_digest: 2}


def test_an_image_that_comes_to_sight_after_a_younger_one_is_linked_to_before_the_turn(night: Night) -> None:
    first = night.submit(range(4))
    second = night.submit(range(4))
    night.render(4)
    assert states(night.database, first) == {"done": 4}
    assert states(night.database, second)["pending"]
    note_linked(night.database, second, newest_image(night.database))
    night.render()
    assert Counter(night.rendered.values()) == {1: 4}


def test_where_no_batches_share_images_a_tick_asks_nothing_about_them(night: Night) -> None:
    night.submit(range(4))
    night.submit(range(4, 8))
    with asked_of(night.database) as asked:
        night.dispatcher.tick()
    assert len(asked) > 5
    assert not [statement for statement in asked if "images" in statement or "linked_to" in statement]


def test_whoever_submits_or_looks_is_told_which_batch_goes_first(
    on_sqlite: Database, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = on_sqlite.engine.url.render_as_string()
    settings = Settings(home=tmp_path, database_url=url, broker_url=redis_url, pair="tiny")
    for name in ("home", "database_url", "broker_url", "pair"):
        monkeypatch.setenv(f"NIGHTSHIFT_{name.upper()}", str(getattr(settings, name)))
    manifest, said = tmp_path / "cats.txt", "batch 1 has the same images and goes first"
    manifest.write_text("a cat\n")
    run = partial(CliRunner().invoke, nightshift.app)
    assert said not in run(["submit", str(manifest)]).stderr
    assert f"{said}; each of them is rendered once" in run(["submit", str(manifest)]).stderr
    assert json.loads(run(["submit", str(manifest), "--json"]).stdout)["waits_for"] == 2  # the next one
    assert said in run(["status", "2"]).stdout
    (seen,) = next(follow(on_sqlite, [2], settings)).sights
    assert status_line(seen) == said
    seen_by_pages = moment(on_sqlite, (), None, settings.lease_seconds)
    prospects = Prospects(on_sqlite, settings).of(seen_by_pages.now, seen_by_pages.batches)
    assert {batch: prospect.waits_for for batch, prospect in prospects.items()} == {2: 1, 3: 2}
    with Client(settings) as client:
        assert client.submit(manifest).waits == said.replace("1", "2")
        assert client.submit(manifest, again=True).waits is None
