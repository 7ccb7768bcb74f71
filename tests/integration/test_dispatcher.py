"""The dispatcher on a real ledger and a real Redis: releasing, telling again, taking back."""

from contextlib import closing, suppress
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import event, select

from farm import batches, ledger, packs
from farm.broker import Broker
from farm.database import Database
from farm.envelope import pack_message
from farm.reconnection import MAX_WAIT_SECONDS
from farm.redis_client import redis_client
from farm.workers import note_seen
from producer import changes
from producer.dispatching.chores import batches_to_sweep
from producer.dispatching.dispatcher import ABANDONED_SECONDS, REPUBLISH_SECONDS, Dispatcher, Tick
from producer.manifests.manifest import ReadOptions, read_rows
from producer.questions import queries
from producer.questions.outlook import outlook
from producer.submitting.submit import BatchRequest, submit
from schemas.errors import BrokerRefusedError, BrokerUnavailableError
from schemas.settings import Settings
from schemas.states import JobState
from schemas.tables import Batch, Job, Pack
from schemas.timing import ANY_TIME, Timing
from tests.integration.ledger_farm import (
    ENVIRONMENT,
    TestClock,
    claimed_pack,
    images_of,
    new_ledger,
    new_worker,
    open_batch,
    release_pack,
    staged,
    states,
)
from tests.servers import RedisServer, temporary_folder

QUEUE = "nightshift.tiny"
LEASE_SECONDS = 0.5


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, lease_seconds=LEASE_SECONDS, pack_size=2, queued_packs_per_worker=3)


@pytest.fixture
def dispatcher(database: Database, broker: Broker, settings: Settings) -> Dispatcher:
    return Dispatcher(database, broker, settings)


def pack_batches(database: Database) -> list[int]:
    with database.begin(read_only=True) as tx:
        return list(tx.execute(select(Pack.batch_id).order_by(Pack.released_at)).scalars())


def test_a_tick_primes_the_queue_before_a_worker_is_there(
    dispatcher: Dispatcher, database: Database, broker: Broker
) -> None:
    batch_id = open_batch(database, 20)
    assert dispatcher.tick().num_released == 3
    assert broker.queue_length(QUEUE) == 3
    assert states(database, batch_id) == {JobState.QUEUED: 6, JobState.PENDING: 14}


def test_redis_holds_a_few_packs_for_each_live_worker_and_no_more(
    dispatcher: Dispatcher, database: Database, broker: Broker
) -> None:
    open_batch(database, 60)
    for _ in range(3):
        new_worker(database)
    assert dispatcher.tick().num_released == 9
    assert dispatcher.tick() == Tick()
    assert broker.queue_length(QUEUE) == 9


def test_higher_priority_is_released_first(dispatcher: Dispatcher, database: Database) -> None:
    open_batch(database, 20, priority=1)
    urgent = open_batch(database, 20, priority=9)
    dispatcher.tick()
    assert pack_batches(database) == [urgent] * 3


def test_batches_of_one_priority_share_the_queue(dispatcher: Dispatcher, database: Database) -> None:
    first, second = open_batch(database, 20), open_batch(database, 20)
    for _ in range(2):
        new_worker(database)
    dispatcher.tick()
    assert sorted(pack_batches(database)) == [first] * 3 + [second] * 3


def test_a_batch_with_less_under_way_is_released_before_an_older_one_of_its_priority(
    dispatcher: Dispatcher, database: Database
) -> None:
    older, other = open_batch(database, 20), open_batch(database, 20)
    claimed_pack(database, older, new_worker(database), 2)
    release_pack(database, older, 2)
    release_pack(database, older, 2)
    assert dispatcher.tick().num_released == 1
    assert pack_batches(database).count(other) == 1


def test_a_tick_that_has_nothing_to_do_writes_its_lease_alone(dispatcher: Dispatcher, database: Database) -> None:
    open_batch(database, 20)
    dispatcher.tick()
    asked = list[str]()
    event.listen(database.engine, "before_cursor_execute", lambda *given: asked.append(given[2].split()[0]))
    assert dispatcher.tick() == Tick()
    assert [word for word in asked if word not in ("BEGIN", "SELECT")] == ["INSERT"]


def test_what_redis_forgot_is_published_again(
    dispatcher: Dispatcher, database: Database, broker: Broker, clock: TestClock, redis_server: RedisServer
) -> None:
    open_batch(database, 6)
    dispatcher.tick()
    redis_server.flush()
    clock.advance(REPUBLISH_SECONDS + 1)
    assert dispatcher.tick().num_republished == 3
    assert broker.queue_length(QUEUE) == 3


def test_a_message_under_way_to_a_claim_is_not_published_again(
    dispatcher: Dispatcher, database: Database, redis_server: RedisServer
) -> None:
    open_batch(database, 6)
    dispatcher.tick()
    redis_server.flush()
    assert dispatcher.tick().num_republished == 0


def test_only_one_of_two_dispatchers_acts(
    dispatcher: Dispatcher, database: Database, broker: Broker, settings: Settings
) -> None:
    open_batch(database, 20)
    other = Dispatcher(database, broker, settings)
    assert dispatcher.tick().num_released == 3
    with database.begin() as tx:
        tx.execute(Pack.__table__.update().values(state="finished"))
    assert other.tick() == Tick()
    dispatcher.close()
    assert other.tick().num_released == 3


def test_a_lease_runs_out_but_not_before_the_dispatcher_has_run_for_one_lease(
    dispatcher: Dispatcher, database: Database, clock: TestClock
) -> None:
    batch_id = open_batch(database, 2)
    claimed_pack(database, batch_id, new_worker(database))
    clock.advance(3600)
    assert dispatcher.tick().num_expired == 0
    clock.advance(LEASE_SECONDS / 2)
    assert dispatcher.tick().num_expired == 0
    clock.advance(LEASE_SECONDS / 2)
    assert dispatcher.tick().num_expired == 1


def test_a_dispatcher_that_takes_over_need_not_wait_for_another_lease(
    dispatcher: Dispatcher, database: Database, broker: Broker, settings: Settings, clock: TestClock
) -> None:
    claimed_pack(database, open_batch(database, 2), new_worker(database))
    other = Dispatcher(database, broker, settings)
    for _ in range(3):
        clock.advance(LEASE_SECONDS / 2)
        dispatcher.tick()
        other.tick()
    with database.begin() as tx:
        tx.execute(Pack.__table__.update().values(state="running", lease_expires_at=clock.now))
    clock.advance(LEASE_SECONDS / 2)
    dispatcher.close()
    assert other.tick().num_expired >= 1


def test_a_lease_is_taken_back_although_redis_is_away(database: Database, settings: Settings, clock: TestClock) -> None:
    claimed_pack(database, open_batch(database, 2), new_worker(database))
    with closing(Broker("redis://127.0.0.1:1/0")) as nowhere:
        dispatcher = Dispatcher(database, nowhere, settings)
        clock.advance(3600)
        for _ in range(3):
            with suppress(BrokerUnavailableError):
                dispatcher.tick()
            clock.advance(LEASE_SECONDS / 2)
    assert states(database, 1).get(JobState.RUNNING) is None


def test_a_batch_whose_producer_died_is_discarded_after_a_day_without_a_row(
    dispatcher: Dispatcher, database: Database, clock: TestClock
) -> None:
    slow, dead = (batches.create_batch(database, name, "tiny", 5) for name in ("slow", "dead"))
    ledger.stage_jobs(database, dead, [staged(1)])
    clock.advance(ABANDONED_SECONDS - 60)
    dispatcher.tick()
    ledger.stage_jobs(database, slow, [staged(1)])
    clock.advance(120)
    dispatcher.tick()
    with database.begin(read_only=True) as tx:
        assert tx.execute(select(Batch.name)).scalars().all() == ["slow"]


def test_a_redis_that_is_full_is_said_to_refuse(dispatcher: Dispatcher, database: Database, redis_url: str) -> None:
    open_batch(database, 2)
    with redis_client(redis_url) as client:
        client.config_set("maxmemory", 1)
        try:
            with pytest.raises(BrokerUnavailableError, match=r"refuses: .*maxmemory"):
                dispatcher.tick()
        finally:
            client.config_set("maxmemory", 0)


def test_a_queue_that_redis_refuses_keeps_no_other_from_its_packs(
    dispatcher: Dispatcher, database: Database, broker: Broker, redis_url: str
) -> None:
    ours, other = open_batch(database, 2), open_batch(database, 2, pair="old")
    with redis_client(redis_url) as client:
        client.set("nightshift.old", "a stranger's")
        try:
            with pytest.raises(BrokerRefusedError, match="WRONGTYPE"):
                dispatcher.tick()
            assert broker.queue_length(QUEUE) == 1
        finally:
            client.delete("nightshift.old")
    assert states(database, ours) == states(database, other) == {JobState.QUEUED: 2}


def test_a_long_tick_is_no_time_in_which_leases_could_not_be_renewed(
    database: Database, broker: Broker, settings: Settings, clock: TestClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of its parts takes less than a break, the whole of it more."""
    open_batch(database, 2)
    claimed_pack(database, 1, new_worker(database))
    clock.advance(3600)
    dispatcher = Dispatcher(database, broker, settings)
    waiting = queries.waiting

    def slow(database: Database, old_seconds: float) -> dict[str, queries.Waiting]:
        clock.advance(2.5)
        return waiting(database, old_seconds)

    monkeypatch.setattr(queries, "waiting", slow)
    assert dispatcher.tick().num_expired == 0
    clock.advance(2.5)
    assert dispatcher.tick().num_expired == 1


def test_a_worker_waits_a_few_seconds_between_two_tries_of_a_redis_that_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kombu.utils.functional.sleep", lambda _seconds: None)
    with closing(Broker("redis://127.0.0.1:1/0")) as nowhere, nowhere.app.connection_for_read() as connection:
        waits = list[float]()

        def note(_error: Exception, seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 9:
                raise KeyboardInterrupt

        with suppress(KeyboardInterrupt):
            connection.ensure_connection(note, None)
    assert max(waits) == MAX_WAIT_SECONDS


def test_a_canceled_batch_is_swept(dispatcher: Dispatcher, database: Database) -> None:
    batch_id = open_batch(database, 20)
    dispatcher.tick()
    batches.cancel_batch(database, batch_id)
    assert dispatcher.tick().num_canceled == 20
    assert states(database, batch_id) == {JobState.CANCELED: 20}


def test_two_farms_on_one_redis_do_not_see_each_other(redis_url: str, broker: Broker) -> None:
    with closing(Broker(redis_url, "other:")) as other:
        other.publish(QUEUE, ["0" * 32])
        assert (broker.queue_length(QUEUE), other.queue_length(QUEUE)) == (0, 1)
    with redis_client(redis_url) as client:
        assert not [key for key in client.scan_iter() if not key.startswith(b"other:")]


def test_a_redis_that_went_away_is_said_in_one_sentence_without_its_password(
    database: Database, settings: Settings
) -> None:
    with temporary_folder() as folder:
        server = RedisServer(folder)
        server.start()
        with closing(Broker(server.url)) as broker:
            open_batch(database, 2)
            server.kill()
            with pytest.raises(BrokerUnavailableError, match="does not answer") as raised:
                Dispatcher(database, broker, settings).tick()
    password = server.url.split(":")[2].split("@")[0]
    assert password not in str(raised.value)


def test_isolated_jobs_fill_the_queue_in_one_tick_like_any_others(dispatcher: Dispatcher, database: Database) -> None:
    batch_id, worker_id = open_batch(database, 8), new_worker(database)
    pack = claimed_pack(database, batch_id, worker_id)
    packs.begin_rendering(database, pack.id, worker_id)
    ledger.expire_leases(database, 3, worker_id)
    assert dispatcher.tick().num_released == 3


def test_a_queued_pack_left_in_a_canceled_batch_is_ended(dispatcher: Dispatcher, database: Database) -> None:
    batch_id = open_batch(database, 2)
    dispatcher.tick()
    batches.cancel_batch(database, batch_id)
    with database.begin() as tx:  # as a release leaves it that commits in the middle of a sweep
        tx.execute(Job.__table__.update().values(state="canceled"))
        tx.execute(Batch.__table__.update().values(num_queued=0, num_canceled=2))
    dispatcher.tick()
    with database.begin(read_only=True) as tx:
        assert tx.execute(select(Pack.state)).scalars().all() == ["canceled"]


def night_settings(tmp_path: Path, **values: object) -> Settings:
    return Settings(home=tmp_path, pack_size=2, queued_packs_per_worker=2, **values)  # type: ignore[arg-type]


def begun_in_four_days(
    dispatcher: Dispatcher, database: Database, clock: TestClock, batch_id: int, pack_seconds: float
) -> list[datetime]:
    """Ticks every half hour of four days; a worker takes what is queued, a pack after the other. When each began."""
    worker_id, begun, end = new_worker(database), list[datetime](), clock.now + timedelta(days=4)
    while clock.now < end:
        note_seen(database, worker_id)
        dispatcher.tick()
        for pack_id in queries.queued_packs(database, "tiny"):
            claimed = ledger.claim_pack(database, pack_id, worker_id, 3600)
            if claimed is not None and packs.begin_rendering(database, claimed.id, worker_id):
                begun.append(clock.now)
                clock.advance(pack_seconds)
                ledger.finish_jobs(database, claimed, ENVIRONMENT, images_of(claimed, seconds=pack_seconds))
            elif claimed is not None:
                ledger.give_back_pack(database, claimed)
        clock.advance(1800)
    return begun


@pytest.mark.parametrize(("month", "day"), [(11, 20), (3, 27), (10, 23)], ids=["a week", "spring", "autumn"])
def test_packs_begin_in_the_nights_alone_and_end_before_the_morning(
    sqlite_url: str, broker: Broker, tmp_path: Path, clock: TestClock, month: int, day: int
) -> None:
    clock.now = datetime(2026, month, day, 9, tzinfo=UTC)
    timing = Timing.parse("fri-sun 23:00-05:00 Europe/Berlin", None, None)
    with closing(new_ledger(sqlite_url, clock)) as database:
        batch_id = batches.create_batch(database, "cats", "tiny", 5, timing=timing)
        ledger.stage_jobs(database, batch_id, [staged(n) for n in range(1, 200)])
        batches.open_batch(database, batch_id)
        dispatcher = Dispatcher(database, broker, night_settings(tmp_path))
        begun = begun_in_four_days(dispatcher, database, clock, batch_id, pack_seconds=1500)
        left = states(database, batch_id)
    berlin = ZoneInfo("Europe/Berlin")
    measured = begun[1:]  # before the first nobody knows how long a pack takes
    last = [moment + timedelta(seconds=1500) for moment in measured]
    assert {moment.astimezone(berlin).hour for moment in begun} <= {23, 0, 1, 2, 3, 4}
    assert {moment.astimezone(berlin).hour for moment in last} <= {23, 0, 1, 2, 3, 4, 5}
    assert all(moment.astimezone(berlin).time() <= time(5) for moment in last if moment.astimezone(berlin).hour == 5)
    assert len({(moment - timedelta(hours=12)).date() for moment in begun}) == 3
    assert left[JobState.PENDING] + left[JobState.DONE] == 199


def windowed_batch(database: Database, window: str, num_jobs: int = 12) -> int:
    batch_id = batches.create_batch(database, "cats", "tiny", 5, timing=Timing.parse(window, None, None))
    ledger.stage_jobs(database, batch_id, [staged(n) for n in range(1, num_jobs + 1)])
    batches.open_batch(database, batch_id)
    return batch_id


def rendered_pack(
    database: Database, clock: TestClock, batch_id: int, worker_id: str, seconds: float, stored_after: float = 0.0
) -> None:
    """``stored_after``: what its images waited for a place in the store."""
    pack = claimed_pack(database, batch_id, worker_id, 2)
    assert packs.begin_rendering(database, pack.id, worker_id)
    clock.advance(seconds + stored_after)
    ledger.finish_jobs(database, pack, ENVIRONMENT, images_of(pack, seconds=seconds))


def test_a_night_in_which_the_store_was_full_closes_none_after_it(
    database: Database, broker: Broker, tmp_path: Path, clock: TestClock
) -> None:
    batch_id, worker_id = windowed_batch(database, "22:00-06:00 UTC"), new_worker(database)  # it is 22:00 UTC
    for stored_after in (0.0, 0.0, 9.5 * 3600):
        rendered_pack(database, clock, batch_id, worker_id, 30.0, stored_after)
    clock.now = datetime(2026, 11, 22, 23, 0, tzinfo=UTC)
    settings = night_settings(tmp_path)
    assert Dispatcher(database, broker, settings).tick().num_released == 2
    assert outlook(database, queries.batch_summary(database, batch_id), settings).waits is None


def test_a_pack_that_takes_longer_than_its_window_begins_at_its_opening_alone_and_that_is_said(
    database: Database, broker: Broker, tmp_path: Path, clock: TestClock
) -> None:
    """Else nothing of it would ever be rendered, in silence, and what was measured would never be measured again."""
    batch_id, settings = windowed_batch(database, "22:00-06:00 UTC"), night_settings(tmp_path)
    dispatcher, worker_id = Dispatcher(database, broker, settings), new_worker(database)
    rendered_pack(database, clock, batch_id, worker_id, 9.5 * 3600)

    def said() -> str | None:
        return outlook(database, queries.batch_summary(database, batch_id), settings).waits

    opens = "its window opens Sun 2026-11-22 22:00 UTC; a pack takes about 9:30:00 and ends after it closes"
    assert (dispatcher.tick().num_released, said()) == (0, opens)
    clock.now = datetime(2026, 11, 22, 23, 0, tzinfo=UTC)
    assert dispatcher.tick().num_released == 0
    assert said() == (
        "no more begins before its window closes, for a pack takes about 9:30:00;"
        " it opens again Mon 2026-11-23 22:00 UTC"
    )
    clock.now = datetime(2026, 11, 23, 22, 30, tzinfo=UTC)
    assert (dispatcher.tick().num_released, said()) == (2, None)
    clock.advance(1200)
    assert ledger.return_queued(database) == 2, "nobody began them in the first tenth of the night"


def test_a_pack_of_larger_images_is_given_more_time_than_those_that_were_measured(
    database: Database, broker: Broker, tmp_path: Path, clock: TestClock
) -> None:
    """By its megapixels × steps."""
    small = windowed_batch(database, "22:00-06:00 UTC", 2)
    rendered_pack(database, clock, small, new_worker(database), 600.0)
    open_batch(database, 2, width=2048, height=2048)  # 40 minutes
    dispatcher = Dispatcher(database, broker, night_settings(tmp_path, window="22:00-06:00 UTC"))
    clock.now = datetime(2026, 11, 22, 5, 25, tzinfo=UTC)
    assert dispatcher.tick().num_released == 0
    clock.now = datetime(2026, 11, 22, 5, 15, tzinfo=UTC)
    assert dispatcher.tick().num_released == 1


def test_the_farms_window_holds_for_every_batch(
    database: Database, broker: Broker, tmp_path: Path, clock: TestClock
) -> None:
    open_batch(database, 2)  # it is 22:00 UTC
    dispatcher = Dispatcher(database, broker, night_settings(tmp_path, window="23:00-05:00 UTC"))
    assert dispatcher.tick().num_released == 0
    clock.advance(3600)
    assert dispatcher.tick().num_released == 1


def test_nothing_of_a_batch_is_released_before_its_time(
    dispatcher: Dispatcher, database: Database, clock: TestClock
) -> None:
    later = Timing(not_before=clock.now + timedelta(hours=1))
    batch_id = batches.create_batch(database, "cats", "tiny", 5, timing=later)
    ledger.stage_jobs(database, batch_id, [staged(1)])
    batches.open_batch(database, batch_id)
    assert dispatcher.tick().num_released == 0
    clock.advance(3600)
    assert dispatcher.tick().num_released == 1


def test_a_batch_that_will_be_late_is_said_once_before_it_is(
    dispatcher: Dispatcher, database: Database, clock: TestClock, caplog: pytest.LogCaptureFixture
) -> None:
    due = Timing(deadline=clock.now + timedelta(hours=1))
    batch_id = batches.create_batch(database, "cats", "tiny", 5, timing=due)
    ledger.stage_jobs(database, batch_id, [staged(n) for n in range(1, 101)])
    batches.open_batch(database, batch_id)
    worker_id = new_worker(database)
    for _ in range(2):
        pack = claimed_pack(database, batch_id, worker_id, 1)
        ledger.finish_jobs(database, pack, ENVIRONMENT, images_of(pack))
        clock.advance(60)
        dispatcher.tick()
    assert [record.message for record in caplog.records if "late" in record.message] == [
        next(record.message for record in caplog.records if "batch 1 (cats) will be late" in record.message)
    ]


def test_a_batch_that_is_kept_behind_others_is_known_to_be_late_before_anything_of_it_is_rendered(
    dispatcher: Dispatcher, database: Database, clock: TestClock, settings: Settings
) -> None:
    """By the pace of its pair's last packs: here an image in five minutes."""
    worker_id = new_worker(database)
    first = open_batch(database, 14, priority=9)
    rendered_pack(database, clock, first, worker_id, 600.0)
    note_seen(database, worker_id)
    due = Timing(deadline=clock.now + timedelta(minutes=69))
    behind = batches.create_batch(database, "dogs", "tiny", 5, timing=due)
    ledger.stage_jobs(database, behind, [staged(n) for n in (1, 2)])
    batches.open_batch(database, behind)

    def late() -> str | None:
        return outlook(database, queries.batch_summary(database, behind), settings).late

    said = late()
    assert said is not None
    assert said.startswith("will be late: after those of a higher priority, at the 0.0033 images/s of its pair's last")
    batches.reprioritise(database, first, 1, None)
    assert late() is None
    clock.advance(3605)
    note_seen(database, worker_id)
    said = late()
    assert said is not None
    assert said.startswith("will be late: at the 0.0033 images/s of its pair's last packs it ends about")


def test_a_paused_batch_takes_back_what_waits_in_redis(dispatcher: Dispatcher, database: Database) -> None:
    batch_id = open_batch(database, 4)
    dispatcher.tick()
    batches.pause_batch(database, batch_id)
    dispatcher.tick()
    assert states(database, batch_id) == {JobState.PENDING: 4}


def test_another_priority_holds_though_a_tick_has_looked_at_the_old_one(
    dispatcher: Dispatcher, database: Database, database_url: str, clock: TestClock, broker: Broker
) -> None:
    open_batch(database, 20)
    other = open_batch(database, 20)
    is_done = False

    def reprioritise(*asked: object) -> None:
        nonlocal is_done
        if "batches.num_pending > " in str(asked[2]) and not is_done:
            is_done = True  # the dispatcher knows the order by now, and has released nothing
            with closing(Database(database_url, clock)) as users:
                changes.reprioritise(users, queries.batch_summary(users, other), 9, None)

    event.listen(database.engine, "after_cursor_execute", reprioritise)
    assert dispatcher.tick() == Tick()
    assert (is_done, broker.queue_length(QUEUE)) == (True, 0)
    assert dispatcher.tick().num_released == broker.queue_length(QUEUE) == 3
    assert states(database, other) == {JobState.QUEUED: 6, JobState.PENDING: 14}


def submitted(database: Database, priority: int, seed: int = 1, timing: Timing = ANY_TIME) -> int:
    row = {"prompt": "a cat", "seed": str(seed)}
    rows = read_rows([row], ReadOptions())
    return submit(database, rows, BatchRequest("urgent", "tiny", priority, timing=timing)).batch_id


def next_claimed(database: Database, redis_url: str) -> int:
    """The batch of the pack that an idle worker begins next: messages are taken in turn until one stands for a pack."""
    worker_id = new_worker(database)
    with closing(redis_client(redis_url)) as redis:
        while entry := redis.rpop(QUEUE):
            if (pack := ledger.claim_pack(database, pack_message(entry).pack_id, worker_id, 60)) is not None:
                return pack.batch_id
    raise AssertionError("no message stands for a pack")


def test_a_batch_of_higher_priority_begins_next_however_many_packs_wait(
    dispatcher: Dispatcher, database: Database, clock: TestClock, redis_url: str
) -> None:
    for _ in range(4):
        new_worker(database)
    night = open_batch(database, 60)
    dispatcher.tick()
    assert next_claimed(database, redis_url) == night  # 11 of 12 wait, so no tick would release any
    urgent = submitted(database, 6)
    clock.advance(0.1)
    dispatcher.tick()
    assert next_claimed(database, redis_url) == urgent
    assert next_claimed(database, redis_url) == night


@pytest.mark.parametrize(("priority", "hours"), [(5, 0), (4, 0), (9, 1)])
def test_a_batch_that_does_not_go_before_them_leaves_the_queued_packs_where_they_are(
    dispatcher: Dispatcher, database: Database, clock: TestClock, priority: int, hours: int
) -> None:
    night = open_batch(database, 6)
    dispatcher.tick()
    submitted(database, priority, timing=Timing(not_before=clock.now + timedelta(hours=hours)))
    assert states(database, night) == {JobState.QUEUED: 6}


def test_only_packs_of_lower_priority_go_back_for_a_batch(dispatcher: Dispatcher, database: Database) -> None:
    high, low, other = open_batch(database, 2, priority=8), open_batch(database, 2), open_batch(database, 2, pair="old")
    dispatcher.tick()
    submitted(database, 6)
    assert [states(database, batch) for batch in (high, low, other)] == [
        {JobState.QUEUED: 2}, {JobState.PENDING: 2}, {JobState.QUEUED: 2}
    ]  # fmt: skip


def test_a_batch_that_is_opened_while_a_tick_releases_begins_before_what_it_released(
    dispatcher: Dispatcher, database: Database, database_url: str, clock: TestClock, broker: Broker, redis_url: str
) -> None:
    open_batch(database, 20)
    urgent = list[int]()

    def submit_meanwhile(*asked: object) -> None:
        if "batches.num_pending > " in str(asked[2]) and not urgent:
            urgent.append(0)
            with closing(Database(database_url, clock)) as users:
                urgent[0] = submitted(users, 9)

    event.listen(database.engine, "after_cursor_execute", submit_meanwhile)
    assert dispatcher.tick() == Tick()
    assert broker.queue_length(QUEUE) == 0
    dispatcher.tick()
    assert next_claimed(database, redis_url) == urgent[0]


def test_another_priority_holds_for_the_next_claim(dispatcher: Dispatcher, database: Database) -> None:
    first, second = open_batch(database, 20), open_batch(database, 20, priority=4)
    dispatcher.tick()
    batches.reprioritise(database, second, 9, None)
    ledger.return_queued(database, "tiny")
    dispatcher.tick()
    queued = queries.queued_packs(database, "tiny")
    with database.begin(read_only=True) as tx:
        assert set(tx.execute(select(Pack.batch_id).where(Pack.id.in_(queued))).scalars()) == {second}
    assert states(database, first) == {JobState.PENDING: 20}


def test_the_dispatcher_marks_what_a_canceled_batch_was_too_large_to_mark_at_once(
    dispatcher: Dispatcher, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = open_batch(database, 5)
    monkeypatch.setattr("farm.ledger.SWEEP_CHUNK", 2)
    monkeypatch.setattr("producer.changes._SWEEP_SECONDS", 0.0)
    canceled = changes.cancel(database, queries.batch_summary(database, batch_id))
    assert canceled is not None
    assert (canceled.state, canceled.num_canceled, canceled.num_pending) == ("canceled", 2, 3)
    assert release_pack(database, batch_id) is None
    dispatcher.tick()
    dispatcher.tick()
    assert states(database, batch_id) == {JobState.CANCELED: 5}


def test_the_dispatcher_removes_what_a_discarded_batch_was_too_large_to_lose_at_once(
    dispatcher: Dispatcher, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = batches.create_batch(database, "cats", "tiny", 5)
    ledger.stage_jobs(database, batch_id, [staged(n) for n in range(1, 6)])
    monkeypatch.setattr("farm.discarding.PIECE", 2)
    monkeypatch.setattr("farm.batches.DISCARD_SECONDS", 0.0)
    assert changes.cancel(database, queries.batch_summary(database, batch_id)) is None
    assert states(database, batch_id) == {JobState.PENDING: 3}
    assert batches_to_sweep(database) == []
    assert dispatcher.tick() == Tick()
    with database.begin(read_only=True) as tx:
        assert tx.execute(select(Batch.id)).all() == tx.execute(select(Job.id)).all() == []
