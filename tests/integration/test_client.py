"""The Python API on a real ledger. Who renders is played by the ledger's own functions; time is given."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from farm import batches, ledger
from farm.database import Database
from farm.image_store import ImageStore
from farm.retries import Failure
from producer import Client, InputError, JobResult, JobState, ManifestError, Settings, WaitTimeoutError
from producer.questions.finished_jobs import finished_jobs
from producer.questions.patience import Patient
from producer.questions.queries import batch_summaries
from schemas.errors import NotFoundError, StorageError
from schemas.records import ClaimedPack
from schemas.tables import Batch, Image
from tests.integration.ledger_farm import (
    ENVIRONMENT,
    TestClock,
    claimed_pack,
    images_of,
    new_ledger,
    new_worker,
    num_waiting,
    open_batch,
)
from tests.integration.played_worker import picture, render

WRONG = Failure("render", "it went wrong", retryable=False, is_of_the_job=True)


@pytest.fixture
def settings(sqlite_url: str, tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", database_url=sqlite_url, images_url=str(tmp_path / "images"))


@pytest.fixture
def database(sqlite_url: str) -> Iterator[Database]:
    with closing(new_ledger(sqlite_url)) as database:
        yield database


@pytest.fixture
def client(settings: Settings, database: Database) -> Iterator[Client]:
    with Client(settings, poll_seconds=0.001) as client:
        yield client


def rows(num: int) -> list[dict[str, Any]]:
    return [{"prompt": f"cat {n}", "seed": n, "width": 64, "height": 64, "kind": "cats"} for n in range(num)]


# --- submitting and looking ------------------------------------------------------------------------------------------


def test_a_submitted_batch_can_be_waited_for_and_looked_at(
    client: Client, database: Database, settings: Settings
) -> None:
    batch = client.submit(rows(3), name="cats", priority=9)
    assert (batch.num_jobs, batch.num_linked, batch.num_left_out, batch.invalid_file) == (3, 0, 0, None)
    assert batch.waits == f"no farm runs here yet: `nightshift up` renders batch {batch.id}"
    assert client.status("cats") == client.status(batch.id) == client.status(batch)
    assert (client.status(batch).priority, client.status(batch).pair) == (9, "tiny")
    render(database, ImageStore(settings.images_url), batch.id)
    ended = client.wait(batch)
    assert (ended.num_done, ended.num_jobs) == (3, 3)
    first, *_ = jobs = list(client.results(batch))
    assert [job.number for job in jobs] == [1, 2, 3]
    assert (first.state, first.spec.prompt, first.meta) == (JobState.DONE, "cat 0", {"kind": "cats"})
    assert (first.width, first.height, first.error, first.name) == (64, 64, None, f"{batch.id}/1")
    assert client.read_image(first) == picture(1)
    assert client.open_image(first).size == (64, 64)
    assert client.provenance(first).environment == ENVIRONMENT


def test_a_batch_submitted_again_is_linked_unless_it_is_wanted_anew(
    client: Client, database: Database, settings: Settings
) -> None:
    render(database, ImageStore(settings.images_url), client.submit(rows(2)).id)
    again = client.submit(rows(3))
    assert again.num_linked == 2
    assert [job.number for job in islice(client.as_finished(again), 2)] == [1, 2]
    assert client.submit(rows(3), again=True).num_linked == 0


def test_a_bad_row_is_named_and_nothing_is_enqueued(client: Client, database: Database) -> None:
    with pytest.raises(ManifestError, match='rows:2: column "width": "63"'):
        client.submit([*rows(1), {"prompt": "a cat", "width": 63}])
    assert batch_summaries(database, 9) == []
    left = client.submit([*rows(1), {"prompt": "a cat", "width": 63}], skip_invalid=True)
    assert (left.num_jobs, left.num_left_out) == (1, 1)
    assert left.invalid_file is not None
    assert "rows:2" in left.invalid_file.read_text()


def test_a_manifest_can_be_submitted_by_its_path(client: Client, tmp_path: Path) -> None:
    manifest = tmp_path / "cats.tsv"
    manifest.write_text("Caption\na cat\na dog\na cow\n")
    options: dict[str, Any] = {"columns": {"Caption": "prompt"}, "limit": 2}
    batch = client.submit(manifest, defaults={"width": 512, "refiner": {"start": 0.9}}, **options)
    assert client.status(batch).name == "cats"
    assert [(job.spec.prompt, job.spec.width, job.spec.refiner.start) for job in client.results(batch)] == [
        ("a cat", 512, 0.9), ("a dog", 512, 0.9),
    ]  # fmt: skip
    assert client.submit(str(manifest), **options).num_jobs == 2


WRONG_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"pair": "none"}, "unknown pair 'none'"),
    ({"name": " "}, 'name " ": is empty'),
    ({"priority": 10}, "priority 10: it is a number from 0 to 9"),
    ({"weight": 0.0}, "weight 0.0: it is a number from 0.001 to 1000"),
    ({"window": "22-6"}, "window '22-6'"),
    ({"not_before": "tomorrow"}, "is no time"),
    ({"defaults": {"wdth": 512}}, "there is no field 'wdth'"),
    ({"defaults": {"width": None}}, "default width: None: should be text"),
    ({"limit": 0}, "the limit is 1 or more"),
    ({"templates": "some"}, 'templates "some": it is sample or all'),
    ({"wildcards": {"a": ["b"]}}, "says nothing without"),
    ({"sweep": ["nothing=1"]}, "there is no field"),
    ({"count": 0}, "--count 0"),
    ({"base_seed": -1}, "base_seed -1"),
]


def test_a_row_becomes_many_as_with_the_command(client: Client, tmp_path: Path) -> None:
    (tmp_path / "animal.txt").write_text("cat\ndog\n")
    for wildcards in (tmp_path, {"animal": ["cat", "dog"]}):
        batch = client.submit([{"prompt": "a {red|blue} __animal__"}], templates="all", wildcards=wildcards,
                              sweep=["width=512,640", "height=512,768"], zipped=True, count=2, base_seed=7)  # fmt: skip
        specs = [job.spec for job in client.results(batch)]
        assert len(specs) == 2 * 2 * 2 * 2
        assert {(spec.width, spec.height) for spec in specs} == {(512, 512), (640, 768)}
        assert {spec.prompt for spec in specs} == {"a red cat", "a blue cat", "a red dog", "a blue dog"}


def test_more_jobs_than_may_be_are_refused_and_none_leaves_an_option_as_it_is(client: Client) -> None:
    with pytest.raises(ManifestError, match="would be 6 jobs"):
        client.submit([{"prompt": "a cat", "count": 3}, {"prompt": "a dog", "count": 3}], max_jobs=5, defaults=None)
    assert client.submit(rows(2), defaults=None, columns=None, name=None, limit=None).num_jobs == 2


def test_a_wrong_option_is_one_sentence(client: Client) -> None:
    for options, sentence in WRONG_OPTIONS:
        with pytest.raises(InputError) as raised:
            client.submit(rows(1), **options)
        assert sentence in str(raised.value)


def test_an_unknown_keyword_is_pythons_own_error(client: Client) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'pairs'"):
        client.submit(rows(1), pairs="tiny")  # type: ignore[call-arg]


def test_the_timing_is_kept(client: Client, database: Database) -> None:
    clock = TestClock()
    batch = client.submit(rows(1), window="22:00-06:00 Europe/Berlin", not_before=clock.now, weight=2.0,
                          deadline="2026-11-22T07:00+01:00")  # fmt: skip
    summary = client.status(batch)
    assert (summary.window, summary.not_before, summary.weight) == ("22:00-06:00 Europe/Berlin", clock.now, 2.0)
    assert summary.deadline is not None
    with pytest.raises(InputError, match="names no time zone"):
        client.submit(rows(1), not_before=clock.now.replace(tzinfo=None))


def test_a_batch_that_does_not_end_in_time_is_a_timeout(client: Client) -> None:
    batch = client.submit(rows(1))
    with pytest.raises(TimeoutError, match=f"batch {batch.id} has not ended after 0.01 s; it goes on"):
        client.wait(batch, timeout=0.01)
    with pytest.raises(WaitTimeoutError):
        client.wait(batch, timeout=0)


def test_a_batch_that_is_not_there_is_said_at_once(client: Client) -> None:
    for ask in (client.status, client.wait, client.results, client.as_finished, client.pause, client.retry):
        with pytest.raises(NotFoundError, match="no batch 7"):
            ask(7)


def test_the_orders_are_those_of_the_commands(client: Client, database: Database) -> None:
    batch = client.submit(rows(2))
    assert client.pause(batch).state == "paused"
    assert client.resume(batch).state == "open"
    worker_id = new_worker(database)
    pack = claimed_pack(database, batch.id, worker_id, 1)
    ledger.fail_jobs(database, pack, [job.id for job in pack.jobs], WRONG, 3)
    failed = next(job for job in client.results(batch) if job.state == JobState.FAILED)
    assert (failed.error_code, failed.error, failed.uri) == ("render", "it went wrong", None)
    with pytest.raises(NotFoundError, match=f"job {batch.id}/1 is failed and has no image"):
        client.read_image(failed)
    with pytest.raises(NotFoundError):
        client.provenance(failed)
    assert client.retry(batch) == 1
    canceled = client.cancel(batch)
    assert canceled is not None
    assert canceled.num_canceled == 2
    staging = batches.create_batch(database, "left", "tiny", 5)
    assert client.cancel(staging) is None


def test_a_file_that_is_not_the_recorded_one_is_refused(client: Client, database: Database, settings: Settings) -> None:
    batch = client.submit(rows(1))
    render(database, ImageStore(settings.images_url), batch.id)
    (job,) = client.results(batch)
    assert job.uri is not None
    Path(job.uri.removeprefix("file://")).write_bytes(b"another")
    with pytest.raises(StorageError, match="is no longer the file that was recorded"):
        client.open_image(job)


def test_threads_may_share_a_client(client: Client) -> None:
    accepted: list[Any] = []
    threads = [threading.Thread(target=lambda: accepted.append(client.submit(rows(20)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(batch.num_jobs for batch in accepted) == [20] * 4
    assert len({batch.id for batch in accepted}) == 4


# --- images as they finish -------------------------------------------------------------------------------------------


class Story:
    """What happens while somebody follows a batch: one event in each pause; a following after the last is a mistake."""

    def __init__(self, *events: Callable[[], object]) -> None:
        self._events = list(events)

    def __call__(self) -> None:
        assert self._events, "nothing happens any more, and the batch has not ended"
        self._events.pop(0)()


def followed(database: Database, batch_id: int, *events: Callable[[], object]) -> list[int]:
    return [job.number for job in finished_jobs(Patient(database, Story(*events)), batch_id)]


def finish(database: Database, pack: ClaimedPack) -> Callable[[], None]:
    return lambda: ledger.finish_jobs(database, pack, ENVIRONMENT, images_of(pack))


def nothing() -> None:
    pass


@pytest.fixture
def clock() -> TestClock:
    return TestClock()


@pytest.fixture
def timed(database_url: str, clock: TestClock) -> Iterator[Database]:
    with closing(new_ledger(database_url, clock)) as database:
        yield database


def claimed(database: Database, batch_id: int, num_packs: int, size: int = 2) -> list[ClaimedPack]:
    worker_id = new_worker(database)
    return [claimed_pack(database, batch_id, worker_id, size) for _ in range(num_packs)]


def test_images_come_in_the_order_in_which_they_finished(timed: Database, clock: TestClock) -> None:
    batch_id = open_batch(timed, 6)
    first, second, third = claimed(timed, batch_id, 3)

    def later(pack: ClaimedPack) -> Callable[[], None]:
        return lambda: (clock.advance(1), finish(timed, pack)())[1]

    assert followed(timed, batch_id, later(third), nothing, later(first), later(second)) == [5, 6, 1, 2, 3, 4]
    assert followed(timed, batch_id) == [5, 6, 1, 2, 3, 4]


def test_images_that_finish_at_one_moment_all_come(timed: Database) -> None:
    batch_id = open_batch(timed, 1_300)
    packs = claimed(timed, batch_id, 3, 600)
    assert sorted(followed(timed, batch_id, *(finish(timed, pack) for pack in packs))) == list(range(1, 1_301))


def test_other_batches_do_not_come(timed: Database) -> None:
    batch_id, other = open_batch(timed, 2), open_batch(timed, 2)
    (ours,), (theirs,) = claimed(timed, batch_id, 1), claimed(timed, other, 1)
    assert followed(timed, batch_id, finish(timed, theirs), finish(timed, ours)) == [1, 2]


@pytest.mark.parametrize("behind_seconds", [5, 3_600])
def test_an_image_with_an_older_time_is_not_missed(timed: Database, clock: TestClock, behind_seconds: float) -> None:
    batch_id = open_batch(timed, 6)
    first, second, third = claimed(timed, batch_id, 3)

    def behind() -> None:
        clock.advance(-behind_seconds)
        finish(timed, second)()

    def ahead() -> None:
        clock.advance(2 * behind_seconds)
        finish(timed, third)()

    assert followed(timed, batch_id, finish(timed, first), behind, nothing, ahead) == [1, 2, 3, 4, 5, 6]


def test_an_image_whose_transaction_is_seen_late_is_not_missed(postgres_url: str) -> None:
    """It has its time, and then waits for an image's row until a younger one was seen."""
    with closing(new_ledger(postgres_url)) as database:
        batch_id = open_batch(database, 6)
        first, slow, quick = claimed(database, batch_id, 3)
        finish(database, first)()  # or the quick one would wait for the slow one's row of ``environments``
        waiting, held = threading.Thread(target=finish(database, slow)), database.begin()

        def hold() -> None:
            tx = held.__enter__()
            tx.execute(insert(Image).values(**images_of(slow)[0].image_row(), created_at=tx.now))
            waiting.start()
            while not num_waiting(database):
                pass
            finish(database, quick)()

        def let_go() -> None:
            held.__exit__(None, None, None)
            waiting.join()

        seen = list(finished_jobs(Patient(database, Story(hold, nothing, let_go)), batch_id))
        assert [job.number for job in seen] == [1, 2, 5, 6, 3, 4]
        times = [job.finished_at for job in seen if job.finished_at is not None]
        assert times[2] > times[4]


def test_a_ledger_that_is_away_for_a_while_costs_no_image(
    sqlite_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, away = tmp_path / "ledger.sqlite3", tmp_path / "away"
    with closing(new_ledger(sqlite_url)) as database:
        batch_id = open_batch(database, 4)
        first, second = claimed(database, batch_id, 2)

        def lose() -> None:
            finish(database, first)()
            database.close()
            file.rename(away)
            file.mkdir()

        def find() -> None:
            file.rmdir()
            away.rename(file)
            finish(database, second)()

        assert followed(database, batch_id, lose, nothing, nothing, find) == [1, 2, 3, 4]
    assert [record.message.endswith("; trying again") for record in caplog.records] == [True]


def test_failed_and_canceled_jobs_end_the_following(database: Database) -> None:
    batch_id = open_batch(database, 4)
    done, failed = claimed(database, batch_id, 2, 1)

    def cancel() -> None:
        batches.cancel_batch(database, batch_id)
        ledger.sweep_canceled(database, batch_id)

    def fail() -> None:
        ledger.fail_jobs(database, failed, [failed.jobs[0].id], WRONG, 3)

    assert followed(database, batch_id, finish(database, done), fail, cancel) == [1]


def test_a_counter_that_is_wrong_costs_one_look_and_no_loop(database: Database) -> None:
    batch_id = open_batch(database, 2)
    (pack,) = claimed(database, batch_id, 1)
    with database.begin() as tx:
        tx.execute(Batch.__table__.update().where(Batch.id == batch_id).values(num_done=3))
    assert followed(database, batch_id, nothing, nothing, finish(database, pack)) == [1, 2]


def test_what_is_given_is_the_job_as_it_ended(client: Client, database: Database, settings: Settings) -> None:
    batch = client.submit(rows(1))
    render(database, ImageStore(settings.images_url), batch.id)
    (job,) = client.as_finished(batch)
    assert isinstance(job, JobResult)
    assert list(client.results(batch)) == [job]
    assert job.finished_at is not None
