"""Watches a farm while it runs: is there a claim at least every minute, and is every file whole at every moment?"""

import time
from threading import Event, Thread
from typing import Self

from sqlalchemy.exc import DBAPIError

from tests.chaos.farm import Farm

_POLL_SECONDS = 0.5
#: Longest time without a claim while work is queued and a device is idle.
STALL_SECONDS = 60.0

_IDLE = """
    SELECT count(*) FROM workers WHERE state = 'ready' AND pair = 'tiny' AND NOT EXISTS
        (SELECT 1 FROM packs WHERE packs.worker_id = workers.id AND packs.state = 'running')
"""
_RUNNING = "SELECT id FROM packs WHERE state = 'running' AND lease_expires_at < {now}"
_CLAIMS = "SELECT count(*) FROM chaos_moves WHERE kind = 'pack' AND new = 'running'"


class Watch:
    """A context manager. ``violations`` grows as it watches; ``stalled`` is set when a run should be given up."""

    def __init__(self, farm: Farm, stall_seconds: float = STALL_SECONDS) -> None:
        self.violations: list[str] = []
        self.stalled = Event()
        self.longest_stall_seconds = 0.0
        self._farm = farm
        self._stall_seconds = stall_seconds
        self._stop = Event()
        self._since = time.monotonic()
        self._num_claims = -1
        self._torn: set[str] = set()
        self._late_since: dict[str, float] = {}
        self._thread = Thread(target=self._run, name="watch")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def forgive(self) -> None:
        """A fault is over: from here on time counts."""
        self._late_since.clear()

    def _run(self) -> None:
        while not self._stop.wait(_POLL_SECONDS):
            self.look_at_files()
            try:
                self._look_at_claims()
                self._look_at_leases()
            except DBAPIError:  # a fault of ours: the database is down
                self._since = time.monotonic()

    def look_at_files(self) -> None:
        for path in self._farm.store.torn():
            if path.name not in self._torn:
                self._torn.add(path.name)
                self.violations.append(f"{path.name} is under its final name, and not whole")

    def _look_at_claims(self) -> None:
        (num_claims,), (idle,) = (self._farm.ask(one)[0] for one in (_CLAIMS, _IDLE))
        waiting = self._farm.num_waiting()
        if num_claims != self._num_claims or not waiting or not idle:
            self._num_claims, self._since = num_claims, time.monotonic()
            return
        stall_seconds = time.monotonic() - self._since
        self.longest_stall_seconds = max(self.longest_stall_seconds, stall_seconds)
        if stall_seconds > self._stall_seconds and not self.stalled.is_set():
            self.violations.append(
                f"{stall_seconds:.0f} s without a claim, with {waiting} jobs waiting and {idle} devices idle"
            )
            self.stalled.set()

    def _look_at_leases(self) -> None:
        """A pack whose lease ran out is taken back soon."""
        now = "CURRENT_TIMESTAMP" if self._farm.ledger == "postgresql" else "datetime('now')"
        late = {pack for (pack,) in self._farm.ask(_RUNNING.format(now=now))}
        self._late_since = {pack: self._late_since.get(pack, time.monotonic()) for pack in late}
        rules = self._farm.rules
        most = min(self._stall_seconds, rules.recovery_seconds - rules.lease_seconds)
        for pack, since in self._late_since.items():
            if time.monotonic() - since > most and not self.stalled.is_set():
                self.violations.append(f"pack {pack} is still running {most:.1f} s after its lease ran out")
                self.stalled.set()
