"""What happens on the farm, for any number of listeners: one thread asks the ledger, once a second.

It runs while somebody listens. However many pages are open, the ledger is asked by one; each listener gets what
changed, and of what changed twice before it came to read, the last.
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from threading import Condition, Thread
from typing import Final

from farm.database import Database
from producer.questions.prospect import Prospects
from producer.web.happenings import Happenings, News
from producer.web.moment import moment
from producer.web.redis_watch import RedisWatch
from schemas.errors import NightshiftError, RequestError
from schemas.settings import Settings

log = logging.getLogger("nightshift.web")

MAX_LISTENERS: Final = 500
_RETRY_SECONDS: Final = 30.0
#: a ledger that does not answer is not waited for
_JOIN_SECONDS: Final = 5.0


class Listener:
    """Of one open page; belongs to the event loop that made it."""

    def __init__(self, present: News) -> None:
        self.closed = False
        self._news = dict(present)
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()

    async def news(self, wait_seconds: float) -> News:
        """What there is to tell; nothing where nothing happened for so long, or nothing will any more."""
        if not self._news and not self.closed:
            try:
                async with asyncio.timeout(wait_seconds):
                    await self._woken.wait()
            except TimeoutError:
                return {}
        news, self._news = self._news, {}
        self._woken.clear()
        return news

    def tell(self, news: News, *, last: bool = False) -> None:
        """From any thread. Whose event loop has ended hears nothing more."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._take, news, last)

    def _take(self, news: News, last: bool) -> None:
        self._news |= news
        self.closed = self.closed or last
        self._woken.set()


class Pulse:
    """``look_seconds``: how often the ledger is asked. ``num_looks``: how often it was."""

    def __init__(self, database: Database, settings: Settings, look_seconds: float = 1.0) -> None:
        self.num_looks = 0
        self._database = database
        self._settings = settings
        self._look_seconds = look_seconds
        self._redis = RedisWatch(settings)
        self._prospects = Prospects(database, settings)
        self._listeners: set[Listener] = set()
        self._changed = Condition()
        self._closed = False
        self._happenings = Happenings(settings.window)
        self._thread: Thread | None = None

    @contextmanager
    def listener(self) -> Iterator[Listener]:
        """Somebody who listens, in an event loop. What is there already comes first.

        Raises:
            RequestError: there are too many, or the process ends.
        """
        listener = self._joined()
        try:
            yield listener
        finally:
            with self._changed:
                self._listeners.discard(listener)
                self._changed.notify_all()

    @property
    def is_running(self) -> bool:
        """Whether the ledger is being asked."""
        with self._changed:
            return self._thread is not None

    def check_room(self) -> None:
        """Raises RequestError where nobody more may listen."""
        with self._changed:
            if self._closed or len(self._listeners) >= MAX_LISTENERS:
                reason = "the web page is being stopped" if self._closed else f"{MAX_LISTENERS} listen already"
                raise RequestError(503, "listeners", f"no more events are given: {reason}", _RETRY_SECONDS)

    def close(self) -> None:
        """Ends every listening, and the thread."""
        with self._changed:
            self._closed = True
            for listener in self._listeners:
                listener.tell({}, last=True)
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(_JOIN_SECONDS)

    def _joined(self) -> Listener:
        with self._changed:
            self.check_room()
            if self._thread is None:
                self._happenings = Happenings(self._settings.window)
                self._thread = Thread(target=self._run, name="pulse", daemon=True)
                self._thread.start()
            listener = Listener(self._happenings.present)
            self._listeners.add(listener)
            return listener

    def _run(self) -> None:
        while True:
            try:
                self._look()
            except Exception:  # whatever it is, listeners would wait for ever for a thread that is gone
                log.exception("looking at the ledger failed; it is tried again")
            with self._changed:
                if not self._changed.wait_for(self._is_over, self._look_seconds):
                    continue
                self._thread = None
                return

    def _is_over(self) -> bool:
        return self._closed or not self._listeners

    def _look(self) -> None:
        self.num_looks += 1
        happenings, answers = self._happenings, self._redis.answers()
        try:
            seen = moment(self._database, happenings.known, happenings.newest, self._settings.lease_seconds)
            seen = replace(seen, prospects=self._prospects.of(seen.now, seen.batches))
        except NightshiftError as error:
            log.warning("%s; it is tried again", error)
            seen = None
        with self._changed:
            news = happenings.seen(seen, redis_answers=answers) if seen else happenings.silence()
            for listener in self._listeners if news else ():
                listener.tell(news)
