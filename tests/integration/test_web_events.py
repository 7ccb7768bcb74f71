"""Events: one thread asks the ledger, however many listen, and none does where nobody listens. On a real ledger."""

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path
from threading import Thread

import pytest

from farm import batches
from farm.database import Database
from farm.ledger import sweep_canceled
from producer.web import pulse
from producer.web.api.events import written
from producer.web.happenings import News
from producer.web.moment import moment
from producer.web.pulse import Listener, Pulse
from producer.web.server import _Server
from schemas.errors import RequestError
from schemas.settings import Settings
from tests.integration.ledger_farm import LEASE_SECONDS, new_ledger, new_worker, open_batch
from tests.integration.web_farm import farm_with_page

QUICK = 0.01


@pytest.fixture
def settings(sqlite_url: str, tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, database_url=sqlite_url)


@pytest.fixture
def ledger(sqlite_url: str) -> Iterator[Database]:
    with closing(new_ledger(sqlite_url)) as database:
        yield database


async def told(listener: Listener, *wanted: tuple[str, str]) -> News:
    """All that is told, until each of these is."""
    found: News = {}
    async with asyncio.timeout(20):
        while not found.keys() >= set(wanted):
            found |= await listener.news(5.0)
    return found


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await test()

    asyncio.run(main())


def test_fifty_listeners_cost_the_ledger_no_more_than_one(ledger: Database, settings: Settings) -> None:
    async def fifty() -> None:
        with closing(Pulse(ledger, settings, look_seconds=3600.0)) as pulse, ExitStack() as stack:
            key = ("batch", str(open_batch(ledger, 2)))
            listeners = [stack.enter_context(pulse.listener()) for _ in range(50)]
            news = await asyncio.gather(*(told(listener, key) for listener in listeners))
            assert [each[key]["num_pending"] for each in news] == [2] * 50
            assert pulse.num_looks == 1
            assert [thread.name for thread in threading.enumerate()].count("pulse") == 1

    run(fifty)


def test_the_ledger_is_left_alone_while_nobody_listens(ledger: Database, settings: Settings) -> None:
    async def come_and_go() -> None:
        with closing(Pulse(ledger, settings, QUICK)) as pulse:
            assert not pulse.is_running
            for _ in range(2):
                with pulse.listener() as listener:
                    await told(listener, ("ledger", ""))
                    assert pulse.is_running
                async with asyncio.timeout(20):
                    while pulse.is_running:
                        await asyncio.sleep(QUICK)
            num_looks = pulse.num_looks
            await asyncio.sleep(5 * QUICK)
            assert pulse.num_looks == num_looks

    run(come_and_go)


def test_what_changes_is_told_and_who_comes_later_hears_first_what_is(ledger: Database, settings: Settings) -> None:
    async def follow() -> None:
        first, second = open_batch(ledger, 1), open_batch(ledger, 1)
        worker = new_worker(ledger)
        with closing(Pulse(ledger, settings, QUICK)) as pulse, pulse.listener() as early:
            keys = [("batch", str(first)), ("batch", str(second)), ("worker", worker)]
            news = await told(early, *keys)
            assert news[keys[2]]["pair"] == "tiny"
            batches.pause_batch(ledger, second)
            changed = await told(early, keys[1])
            assert (changed[keys[1]]["state"], keys[0] in changed) == ("paused", False)
            with pulse.listener() as late:
                heard = await told(late, *keys)
                assert heard[keys[1]]["state"] == "paused"

    run(follow)


def test_what_ended_long_ago_is_no_news_though_nothing_goes_on(ledger: Database) -> None:
    ended = open_batch(ledger, 1)
    batches.cancel_batch(ledger, ended)
    sweep_canceled(ledger, ended)
    first = moment(ledger, (), None, LEASE_SECONDS)
    assert (first.batches, first.newest) == ((), ended)
    assert moment(ledger, (), first.newest, LEASE_SECONDS).batches == ()
    new = open_batch(ledger, 1)
    assert [batch.id for batch in moment(ledger, (), first.newest, LEASE_SECONDS).batches] == [new]


def test_a_batch_is_gone_when_the_ledger_has_it_no_more_and_not_when_many_younger_ones_come(
    ledger: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producer.web.moment.MAX_BATCHES", 2)
    old, discarded = open_batch(ledger, 1), batches.create_batch(ledger, "cats", "tiny", 5)
    young = [open_batch(ledger, 1) for _ in range(2)]
    batches.discard_batch(ledger, discarded)
    now = moment(ledger, {old, discarded}, old, LEASE_SECONDS)
    assert [batch.id for batch in now.batches] == [*reversed(young), old]
    assert now.gone == {discarded}


def test_a_slow_listener_gets_the_last_of_what_changed() -> None:
    async def be_slow() -> None:
        listener, key = Listener({}), ("batch", "3")
        for state in ("paused", "open", "canceled"):
            listener.tell({key: {"state": state}})
        await asyncio.sleep(0)
        assert await listener.news(5.0) == {key: {"state": "canceled"}}
        assert await listener.news(0.0) == {}

    run(be_slow)


def test_listening_ends_with_the_process_and_nobody_begins_then(ledger: Database, settings: Settings) -> None:
    async def end() -> None:
        pulse = Pulse(ledger, settings, look_seconds=3600.0)  # a second look may find that no Redis answers
        with pulse.listener() as listener:
            await told(listener, ("ledger", ""))
            await asyncio.to_thread(pulse.close)
            assert await listener.news(5.0) == {}
            assert listener.closed
        assert not pulse.is_running
        with pytest.raises(RequestError, match="is being stopped"), pulse.listener():
            pass

    run(end)


def test_there_are_only_so_many_listeners(
    ledger: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulse, "MAX_LISTENERS", 1)

    async def crowd() -> None:
        with closing(Pulse(ledger, settings, QUICK)) as pulse, pulse.listener():
            with pytest.raises(RequestError) as caught, pulse.listener():
                pass
            assert (caught.value.status, caught.value.request_code) == (503, "listeners")

    run(crowd)


def test_a_page_that_is_closed_is_listened_for_no_more(tmp_path: Path) -> None:
    """By a real server: what notices it is between that and Starlette."""
    with farm_with_page(tmp_path) as farm, socket.create_server(("127.0.0.1", 0)) as listener:
        server = _Server(farm.page)
        thread = Thread(target=lambda: asyncio.run(server.serve([listener])), daemon=True)
        thread.start()
        pages = [HTTPConnection("127.0.0.1", listener.getsockname()[1], timeout=30) for _ in range(3)]
        for page in pages:
            page.request("GET", "/api/v1/events")
            assert page.getresponse().readline() == b"retry: 3000\n"
        assert farm.page.pulse.is_running
        for page in pages:
            page.close()
        deadline = time.monotonic() + 10  # less than between two heartbeats
        while farm.page.pulse.is_running and time.monotonic() < deadline:
            time.sleep(QUICK)
        assert not farm.page.pulse.is_running
        server.should_exit = True
        thread.join()


def test_nothing_in_what_is_told_can_forge_an_event() -> None:
    text = written({("batch", "3"): {"name": "a\n\nevent: removed\ndata: {}\r\u2028"}})
    assert text.count("\n") == 3
    assert text.startswith("event: batch\ndata: {")
    assert written({}) == ": still here\n\n"
