"""Two programs that take turns on one machine, a second or so each: one stands still (SIGSTOP) while the other runs.

A shared machine's speed goes up and down by a fifth from minute to minute. Both meet the same minutes, so what one is
to the other can be told within a per cent.
"""

import os
import signal
import time
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import psutil

from benchmarks.thread_times import Had, stolen_seconds, threads_had


class Turn(NamedTuple):
    """``began``, ``ended``: seconds since the epoch. ``before``, ``after``: of the threads of the process that works.
    ``stolen_seconds``: what the host took of all cores meanwhile."""

    began: float
    ended: float
    before: dict[int, Had]
    after: dict[int, Had]
    stolen_seconds: float


class TurnTaker:
    """A process with all that it has started by now: they run in its turns alone.

    ``working_process_id``: whose threads are looked at.
    """

    def __init__(self, process_id: int, working_process_id: int) -> None:
        descendants = psutil.Process(process_id).children(recursive=True)
        self._process_ids = [process_id, *(process.pid for process in descendants)]
        self._working_process_id = working_process_id
        self.turns: list[Turn] = []
        self._tell(signal.SIGSTOP)

    def take(self, seconds: float) -> None:
        """Its turn."""
        before, stolen, began = threads_had(self._working_process_id), stolen_seconds(), time.time()
        self._tell(signal.SIGCONT)
        time.sleep(seconds)
        self._tell(signal.SIGSTOP)
        ended, stolen = time.time(), stolen_seconds() - stolen
        self.turns.append(Turn(began, ended, before, threads_had(self._working_process_id), stolen))

    def let_go(self) -> None:
        """No turns any more: it runs."""
        self._tell(signal.SIGCONT)

    def _tell(self, number: signal.Signals) -> None:
        for process_id in self._process_ids:
            with suppress(ProcessLookupError):
                os.kill(process_id, number)


class Shares(NamedTuple):
    """Of the time of its turns, what the busiest thread had of it: on a core, in line for one, and waiting for
    something else. ``stolen``: what the host took, of all cores."""

    busy: float
    queued: float
    waiting: float
    stolen: float
    busy_seconds: float


def shares(turns: list[Turn]) -> Shares:
    """Of these turns."""
    seconds = sum(turn.ended - turn.began for turn in turns)
    had = {thread: _had(turns, thread) for thread in turns[-1].after}
    busy, queued = max(had.values())
    stolen = sum(turn.stolen_seconds for turn in turns) / (seconds * (os.cpu_count() or 1))
    return Shares(busy / seconds, queued / seconds, 1 - (busy + queued) / seconds, stolen, busy)


def _had(turns: list[Turn], thread: int) -> Had:
    both = [(turn.before.get(thread, Had(0.0, 0.0)), turn.after.get(thread, Had(0.0, 0.0))) for turn in turns]
    return Had(*(sum(after[number] - before[number] for before, after in both) for number in range(2)))


class Progress:
    """How far a program was at any instant. ``begins``: of its packs, seconds since the epoch, rising. ``sizes``: the
    images of each."""

    def __init__(self, turns: list[Turn], begins: list[float], sizes: list[int]) -> None:
        edges = [edge for turn in turns for edge in (turn.began, turn.ended)]
        lengths = [length for turn in turns for length in (0.0, turn.ended - turn.began)]
        self._edges, self._ran = np.array(edges), np.cumsum(lengths)
        self.begins = np.array(begins)
        self._images = np.cumsum([0, *sizes[:-1]])

    def ran(self, at: np.ndarray) -> np.ndarray:
        """Seconds of its turns, up to these instants."""
        return np.interp(at, self._edges, self._ran)

    def images(self, at: np.ndarray) -> np.ndarray:
        """Up to these instants. In a pack they grow with the time that it has run."""
        return np.interp(self.ran(at), self.ran(self.begins), self._images)


_RESAMPLINGS = 10_000
_FEWEST_STRETCHES = 5


class Comparison(NamedTuple):
    """Images/s of each, and the second one's as a share of the first one's: of all of the time, the bounds of its 95 %
    interval, and the median of the stretches."""

    first_per_s: float
    second_per_s: float
    share: float
    low: float
    high: float
    median: float
    num_stretches: int
    began: float
    ended: float


def compared(first: Progress, second: Progress, stretch_seconds: float) -> Comparison:
    """By stretches from pack to pack of the second program, in each of which either ran for so many seconds. The first
    pack of either is a warm-up, and the last one may not be whole.

    The interval is the bootstrap's: stretches drawn anew, with replacement, ten thousand times (Efron, 1979).
    """
    cuts = _cuts(first, second, stretch_seconds)
    done = np.array([np.diff(values) for side in (first, second) for values in (side.images(cuts), side.ran(cuts))])
    drawn = np.random.default_rng(0).integers(0, done.shape[1], (_RESAMPLINGS, done.shape[1]))
    low, high = np.quantile(_share(done[:, drawn].sum(axis=2)), [0.025, 0.975])
    whole = done.sum(axis=1)
    return Comparison(
        float(whole[0] / whole[1]), float(whole[2] / whole[3]), float(_share(whole)), float(low), float(high),
        float(np.median(_share(done))), done.shape[1], float(cuts[0]), float(cuts[-1]),
    )  # fmt: skip


def _cuts(first: Progress, second: Progress, stretch_seconds: float) -> np.ndarray:
    """Where stretches end and begin: with packs of the second program."""
    began = max(first.begins[1], second.begins[1])
    ended = min(first.begins[-1], second.begins[-1])
    cuts: list[float] = []
    for at in second.begins[(second.begins >= began) & (second.begins <= ended)]:
        here = np.array([cuts[-1], at]) if cuts else None
        if here is None or min(np.diff(side.ran(here))[0] for side in (first, second)) >= stretch_seconds:
            cuts.append(float(at))
    if len(cuts) <= _FEWEST_STRETCHES:
        raise ValueError(f"{max(len(cuts) - 1, 0)} stretches of {stretch_seconds:g} s are too few to compare")
    return np.array(cuts)


def _share(done: np.ndarray) -> np.ndarray:
    """Of images and seconds of the first, images and seconds of the second."""
    return (done[2] / done[3]) / (done[0] / done[1])
