"""Devices that render nothing and take their time for it: each a timer that asks of ledger and broker what a worker
asks, and claims its next pack while one renders. A few threads drive a thousand of them.
"""

import heapq
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count

from farm import ledger, packs
from farm.database import Database
from farm.envelope import pack_message
from farm.redis_client import redis_client
from farm.workers import note_seen
from schemas.pair import queue_name
from schemas.provenance import Environment
from schemas.records import ClaimedPack, FinishedImage, StoredImage

LEASE_SECONDS = 60.0

_POLL_SECONDS = 0.2
_THREADS = 12


@dataclass
class Device:
    """A simulated device: what it renders is in ``rendering``, what it has claimed beside that in ``next_pack``."""

    worker_id: str
    pair: str
    pack_key: str = ""
    rendering: ClaimedPack | None = None
    next_pack: ClaimedPack | None = None
    idle_since: float = 0.0


@dataclass
class Figures:
    """Summed from the end of the warm-up on. Threads share it."""

    idle_seconds: float = 0.0
    num_packs: int = 0
    num_changes: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Devices:
    """All devices, driven by a clock of events and a few threads that do what workers ask of ledger and broker."""

    def __init__(self, database: Database, redis_url: str, devices: list[Device], pack_seconds: float) -> None:
        self.figures = Figures()
        self._database = database
        self._redis = redis_client(redis_url)
        self._devices = devices
        self._pack_seconds = pack_seconds
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._changed = threading.Condition()
        self._pool = ThreadPoolExecutor(_THREADS)

    def run(self, seconds: float) -> None:
        """Devices begin one after the other within a pack's time, as they would after a while."""
        started = time.monotonic()
        for number, device in enumerate(self._devices):
            device.idle_since = started
            phase = self._pack_seconds * number / len(self._devices)
            self._at(started + phase, lambda device=device: self._submit(self._fetch, device))
            self._at(started + phase, lambda device=device: self._submit(self._renew, device))
        warm = started + 3 * self._pack_seconds
        self._at(warm, self._begin_to_count)
        self._drive(warm + seconds)
        self._end_counting(warm + seconds)
        self._pool.shutdown()

    def _at(self, when: float, what: Callable[[], None]) -> None:
        with self._changed:
            heapq.heappush(self._events, (when, next(self._order), what))
            self._changed.notify()

    def _drive(self, until: float) -> None:
        while (now := time.monotonic()) < until:
            with self._changed:
                if not self._events or self._events[0][0] > now:
                    self._changed.wait(min(until, self._events[0][0] if self._events else until) - now)
                    continue
                _, _, what = heapq.heappop(self._events)
            what()

    def _submit(self, step: Callable[[Device], None], device: Device) -> None:
        self._pool.submit(self._guarded, step, device)

    def _guarded(self, step: Callable[[Device], None], device: Device) -> None:
        try:
            step(device)
        except BaseException as error:
            print(f"{step.__name__}: {error!r}", file=sys.stderr)
            os._exit(1)

    def _fetch(self, device: Device) -> None:
        """Takes a message and claims for it; comes again soon where there is none."""
        entry = self._redis.rpop(queue_name(device.pair))
        pack = None
        if entry is not None:
            message = pack_message(entry)
            pack = ledger.claim_pack(self._database, message.pack_id, device.worker_id, LEASE_SECONDS, device.pack_key)
        if pack is None:
            self._at(time.monotonic() + (0 if entry else _POLL_SECONDS), lambda: self._submit(self._fetch, device))
            return
        with self.figures.lock:
            self.figures.num_changes += pack.pack_key != device.pack_key
        device.pack_key, device.next_pack = pack.pack_key, pack
        if device.rendering is None:
            self._render(device)

    def _render(self, device: Device) -> None:
        """The device's next pack, if it has one, and a claim for the one after."""
        now = time.monotonic()
        pack, device.rendering, device.next_pack = device.next_pack, device.next_pack, None
        if pack is None:
            device.idle_since = now
            return
        with self.figures.lock:
            self.figures.idle_seconds += now - device.idle_since
            self.figures.num_packs += 1
        self._at(now + self._pack_seconds, lambda: self._ended(device, pack, now + self._pack_seconds))
        packs.begin_rendering(self._database, pack.id, device.worker_id)
        self._fetch(device)

    def _ended(self, device: Device, pack: ClaimedPack, at: float) -> None:
        """Storing the images is the finishers' work, beside the device."""
        device.idle_since = at
        self._submit(self._render, device)
        self._submit(lambda _: self._finish(pack), device)

    def _finish(self, pack: ClaimedPack) -> None:
        ledger.finish_jobs(self._database, pack, _ENVIRONMENT, _images(pack))

    def _renew(self, device: Device) -> None:
        note_seen(self._database, device.worker_id)
        held = [pack.id for pack in (device.rendering, device.next_pack) if pack is not None]
        if held:
            packs.renew_leases(self._database, device.worker_id, held, LEASE_SECONDS)
        self._at(time.monotonic() + LEASE_SECONDS / 3, lambda: self._submit(self._renew, device))

    def _begin_to_count(self) -> None:
        now = time.monotonic()
        with self.figures.lock:
            self.figures.idle_seconds, self.figures.num_packs, self.figures.num_changes = 0.0, 0, 0
            for device in self._devices:
                device.idle_since = now if device.rendering is None else device.idle_since

    def _end_counting(self, now: float) -> None:
        with self.figures.lock:
            waiting = [device for device in self._devices if device.rendering is None]
            self.figures.idle_seconds += sum(now - device.idle_since for device in waiting)


_ENVIRONMENT = Environment(
    pair="simulated", pair_fingerprint="f" * 64, base="simulated", base_revision=None, base_hash="b" * 10,
    refiner=None, refiner_revision=None, refiner_hash=None, license="none", versions={}, device="simulated",
    dtype="float16", attention_backend="none",
)  # fmt: skip
_PROVENANCE = {"handoff": "sigmas", "forward_pass_size": 8, "base_steps": 32, "refiner_steps": 8, "handoff_sigma": 0.7,
               "prompt_chunks": 1, "refiner_prompt_chunks": 1, "watermark_bits": 48}  # fmt: skip


def _images(pack: ClaimedPack) -> list[FinishedImage]:
    width, height = map(int, pack.pack_key.split("/")[0].split("x"))
    return [
        FinishedImage(
            job.id,
            StoredImage(f"file:///{job.id:032x}.png", f"{job.id:064x}", "b" * 64, 1_500_000, width, height, "png"),
            f"{job.id:064x}", "f" * 64, _PROVENANCE, 1, 1.0, 0.1,
        )
        for job in pack.jobs
    ]  # fmt: skip
