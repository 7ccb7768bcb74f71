"""Devices that render nothing: each asks of ledger and broker what a worker asks, when a worker would, in a time that
passes only when everything that happens at a moment has been done. So a thousand of them need no thousand GPUs, and
what they wait for is the dispatcher's policy and never this machine.
"""

import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count

from farm import ledger, packs
from farm.database import Database
from farm.envelope import pack_message
from farm.odd_shapes import odd_shape_seconds
from farm.redis_client import redis_client
from farm.workers import note_seen
from schemas.pair import queue_name
from schemas.provenance import Environment
from schemas.records import ClaimedPack, FinishedImage, StoredImage

LEASE_SECONDS = 60.0
#: that wait in Redis
PACKS_PER_DEVICE = 4

_POLL_SECONDS = 0.2


class Clock:
    """The time of ledger, dispatcher and devices."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._start = datetime(2026, 1, 1, 22, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self._start + timedelta(seconds=self.seconds)


@dataclass
class Device:
    """What it renders is ``rendering``; ``next_pack`` is what it has claimed meanwhile."""

    worker_id: str
    pair: str
    pack_key: str = ""
    rendering: ClaimedPack | None = None
    next_pack: ClaimedPack | None = None
    idle_since: float = 0.0


@dataclass
class Figures:
    """From the end of the warm-up on. ``cpu_seconds``: of the devices' side, this process's."""

    idle_seconds: float = 0.0
    num_packs: int = 0
    num_changes: int = 0
    cpu_seconds: float = 0.0


class Devices:
    """All devices, and ``tick``, which the dispatcher does every ``tick_seconds``."""

    def __init__(self, database: Database, redis_url: str, devices: list[Device], clock: Clock) -> None:
        self.figures = Figures()
        self._database = database
        self._redis = redis_client(redis_url)
        self._devices = devices
        self._clock = clock
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    def start(self, pack_seconds: float, tick: Callable[[], object], tick_seconds: float) -> None:
        """Everybody begins; time passes by ``pass_time``."""
        self._pack_seconds = pack_seconds
        self._odd_seconds = odd_shape_seconds(pack_seconds, PACKS_PER_DEVICE)
        self._every(0.0, tick_seconds, tick, counted=False)
        for number, device in enumerate(self._devices):
            phase = pack_seconds * number / len(self._devices)  # as they would be after a while
            self._at(phase, lambda device=device: self._fetch(device))
            self._every(phase, LEASE_SECONDS / 3, lambda device=device: self._renew(device))

    def pass_time(self, seconds: float) -> None:
        """What happens within so many seconds from now."""
        until = self._clock.seconds + seconds
        while self._events and self._events[0][0] <= until:
            self._clock.seconds, _, what = heapq.heappop(self._events)
            what()
        self._clock.seconds = until

    def begin_to_count(self) -> None:
        """The warm-up is over."""
        self.figures = Figures()
        for device in self._devices:
            device.idle_since = self._clock.seconds

    def end_counting(self) -> None:
        """Devices that wait now have been idle until now."""
        waiting = [device for device in self._devices if device.rendering is None]
        self.figures.idle_seconds += sum(self._clock.seconds - device.idle_since for device in waiting)

    def _at(self, when: float, what: Callable[[], object], *, counted: bool = True) -> None:
        def do() -> None:
            began = time.process_time()
            what()
            if counted:
                self.figures.cpu_seconds += time.process_time() - began

        heapq.heappush(self._events, (when, next(self._order), do))

    def _every(self, first: float, seconds: float, what: Callable[[], object], *, counted: bool = True) -> None:
        def again() -> None:
            what()
            self._every(self._clock.seconds + seconds, seconds, what, counted=counted)

        self._at(first, again, counted=counted)

    def _fetch(self, device: Device) -> None:
        """Takes a message and claims for it; comes again soon where there is none."""
        entry = self._redis.rpop(queue_name(device.pair))
        if entry is None:
            self._at(self._clock.seconds + _POLL_SECONDS, lambda: self._fetch(device))
            return
        pack_id = pack_message(entry).pack_id
        pack = ledger.claim_pack(
            self._database, pack_id, device.worker_id, LEASE_SECONDS, device.pack_key, self._odd_seconds
        )
        if pack is None:
            self._fetch(device)
            return
        self.figures.num_changes += pack.pack_key != device.pack_key
        device.pack_key, device.next_pack = pack.pack_key, pack
        if device.rendering is None:
            self._render(device)

    def _render(self, device: Device) -> None:
        """The device's next pack, if it has one, and a claim for the one after."""
        device.rendering, device.next_pack = device.next_pack, None
        if device.rendering is None:
            device.idle_since = self._clock.seconds
            return
        self.figures.idle_seconds += self._clock.seconds - device.idle_since
        self.figures.num_packs += 1
        pack = device.rendering
        self._at(self._clock.seconds + self._pack_seconds, lambda: self._end(device, pack))
        packs.begin_rendering(self._database, pack.id, device.worker_id)
        self._fetch(device)

    def _end(self, device: Device, pack: ClaimedPack) -> None:
        device.idle_since = self._clock.seconds
        self._render(device)
        ledger.finish_jobs(self._database, pack, ENVIRONMENT, simulated_images(pack))

    def _renew(self, device: Device) -> None:
        note_seen(self._database, device.worker_id)
        held = [pack.id for pack in (device.rendering, device.next_pack) if pack is not None]
        if held:
            packs.renew_leases(self._database, device.worker_id, held, LEASE_SECONDS)


ENVIRONMENT = Environment(
    pair="simulated", pair_fingerprint="f" * 64, base="simulated", base_revision=None, base_hash="b" * 10,
    refiner=None, refiner_revision=None, refiner_hash=None, license="none", versions={}, device="simulated",
    dtype="float16", attention_backend="none",
)  # fmt: skip
_PROVENANCE = {"handoff": "sigmas", "forward_pass_size": 8, "base_steps": 32, "refiner_steps": 8, "handoff_sigma": 0.7,
               "prompt_chunks": 1, "refiner_prompt_chunks": 1, "watermark_bits": 48}  # fmt: skip


def simulated_images(pack: ClaimedPack) -> list[FinishedImage]:
    width, height = map(int, pack.pack_key.split("/")[0].split("x"))
    return [
        FinishedImage(
            job.id,
            StoredImage(f"file:///{job.id:032x}.png", f"{job.id:064x}", "b" * 64, 1_500_000, width, height, "png"),
            f"{job.id:064x}", "f" * 64, _PROVENANCE, 1, 1.0, 0.1,
        )
        for job in pack.jobs
    ]  # fmt: skip
