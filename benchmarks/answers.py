"""How long a farm of a million waiting jobs takes to answer, and from when on what was ordered holds.

`status`, `pause`, `resume`, `reprioritise`, `retry` and `cancel` are real commands, timed from the start of their
process to its end. Meanwhile a dispatcher releases packs, and a device claims them by Redis' messages, gives each back,
and notes when it got it. ``holds after``: the last claim that the order forbids, from the command's start. That none
begins after the answer is checked, by the device and by asking for each pack that was queued before; what is allowed
again is released and claimed at once. Exits 1 over ``--goal``, and where a claim did not obey.

Bias: nothing renders, so neither ledger nor cores are busy with results; the device claims twenty times a second.
"""

import argparse
import os
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import func, select

from benchmarks.claims import Claims
from benchmarks.record import append
from benchmarks.waiting_farm import OTHER_SHARE, WaitingFarm, waiting_farm
from farm import ledger
from farm.database import Database
from schemas.states import JobState, PackState
from schemas.tables import Job, Pack

_PACK_SIZE = 8
#: of packs that were queued before an order, as many are asked for after it
_ASKED = 50
#: so long the device is watched after an order
_WATCHED_SECONDS = 2.0
_RELEASE_SECONDS = 60.0


@dataclass(frozen=True)
class Answer:
    """Of one command. ``held_seconds``: None where there is nothing to obey; ``flaw``: what did not obey."""

    command: str
    seconds: float
    cpu_seconds: float
    held_seconds: float | None = None
    flaw: str = ""


def main() -> int:
    options = _options()
    with ExitStack() as stack:
        farm = stack.enter_context(waiting_farm(options.ledger, options.jobs, options.devices))
        database = stack.enter_context(closing(Database(farm.database_url)))
        claims = stack.enter_context(Claims(farm))
        answers = _Orders(farm, database, claims).given(options.rounds)
    print(f"{options.jobs:,} jobs wait in {options.ledger}, and packs for {options.devices:,} devices in Redis")
    print(f"{'':14} {'answers after':>14} {'CPU':>8} {'holds after':>12}")
    found = [_worst([answer for answer in answers if answer.command == name]) for name in _names(answers)]
    for one in found:
        held = "" if one.held_seconds is None else f"{one.held_seconds:10.2f} s"
        print(f"{one.command:14} {one.seconds:12.2f} s {one.cpu_seconds:6.2f} s {held:>12}")
    figures = {"ledger": options.ledger, "jobs": options.jobs, "devices": options.devices,
               "answers": {one.command: asdict(one) for one in found}}  # fmt: skip
    append("answers", options.record, figures)
    slow = [f"{one.command} took {one.seconds:.2f} s" for one in found if one.seconds > options.goal]
    wrong = [*slow, *(f"{one.command}: {one.flaw}" for one in answers if one.flaw)]
    print(*wrong, sep="\n", file=sys.stderr)
    return int(bool(wrong))


def _names(answers: list[Answer]) -> list[str]:
    return list(dict.fromkeys(answer.command for answer in answers))


def _worst(answers: list[Answer]) -> Answer:
    """The slowest; of the processor's time the least, which other processes change less."""
    held = [one.held_seconds for one in answers if one.held_seconds is not None]
    return Answer(
        answers[0].command,
        max(one.seconds for one in answers),
        min(one.cpu_seconds for one in answers),
        max(held, default=None),
        "; ".join(filter(None, (one.flaw for one in answers))),
    )


class _Orders:
    """All of them, one after another."""

    def __init__(self, farm: WaitingFarm, database: Database, claims: Claims) -> None:
        self._farm = farm
        self._database = database
        self._claims = claims

    def given(self, rounds: int) -> list[Answer]:
        first, other = self._farm.first, self._farm.other
        answers = []
        for _ in range(rounds):
            answers += [self._plain("pairs"), self._plain("status")]
            answers.append(self._forbidding(first, "pause", str(first)))
            answers.append(self._allowing("resume", first))
            answers.append(self._plain("reprioritise", str(other), "--priority", "5"))
            answers.append(self._forbidding(first, "reprioritise", str(other), "--priority", "9"))
            answers.append(self._plain("reprioritise", str(other), "--priority", "5"))
        answers.append(self._retried())
        answers.append(self._forbidding(other, "cancel", str(other)))
        return answers

    def _plain(self, *words: str) -> Answer:
        _, seconds, cpu_seconds = self._run(*words)
        return Answer(words[0], seconds, cpu_seconds)

    def _forbidding(self, batch_id: int, *words: str) -> Answer:
        """After it nothing of the batch may be claimed."""
        queued = self._queued(batch_id)
        began, seconds, cpu_seconds = self._run(*words)
        got = [pack_id for pack_id in queued if self._claimed(pack_id)]
        time.sleep(_WATCHED_SECONDS)
        late = [claim for claim in self._claims.of(batch_id, since=began + seconds) if claim.began > began + seconds]
        during = [claim.ended - began for claim in self._claims.of(batch_id, since=began)]
        flaw = f"{len(got)} of {len(queued)} packs were claimed after it" if got else ""
        flaw = flaw or (f"the device got {len(late)} packs after it" if late else "")
        return Answer(words[0], seconds, cpu_seconds, max(during, default=0.0), flaw)

    def _allowing(self, command: str, batch_id: int) -> Answer:
        """After it a pack of the batch can be released and claimed, by whom it may concern at once."""
        began, seconds, cpu_seconds = self._run(command, str(batch_id))
        released = ledger.release_packs(self._database, batch_id, 1, _PACK_SIZE)
        pack = self._claim(released[0].id) if released else None
        held = time.perf_counter() - began
        if pack is None:
            return Answer(command, seconds, cpu_seconds, held, "nothing of the batch could be claimed after it")
        ledger.give_back_pack(self._database, pack)
        return Answer(command, seconds, cpu_seconds, held)

    def _retried(self) -> Answer:
        """The dispatcher may have released those that had failed by then: they are the batch's oldest jobs."""
        answer, first = self._allowing("retry", self._farm.first), self._farm.first
        live = Job.state.in_([JobState.PENDING, JobState.QUEUED])
        again = select(func.count()).where(Job.batch_id == first, Job.number <= self._farm.num_failed, live)
        with self._database.begin(read_only=True) as tx:
            left = self._farm.num_failed - tx.execute(again).scalar_one()
        return replace(answer, flaw=f"{left:,} jobs are not tried again") if left else answer

    def _queued(self, batch_id: int) -> list[str]:
        """Packs of the batch that wait for a worker: it takes the dispatcher a moment to fill the queue again."""
        wanted = select(Pack.id).where(Pack.batch_id == batch_id, Pack.state == PackState.QUEUED)
        deadline = time.monotonic() + _RELEASE_SECONDS
        while time.monotonic() < deadline:
            with self._database.begin(read_only=True) as tx:
                if len(found := tx.execute(wanted.limit(_ASKED)).scalars().all()) == _ASKED:
                    return list(found)
            time.sleep(0.1)
        raise RuntimeError(f"the dispatcher releases nothing of batch {batch_id}")

    def _claimed(self, pack_id: str) -> bool:
        pack = self._claim(pack_id)
        if pack is not None:
            ledger.give_back_pack(self._database, pack)
        return pack is not None

    def _claim(self, pack_id: str) -> Any:
        """The very pack."""
        return ledger.claim_pack(self._database, pack_id, self._farm.worker_id, 600.0)

    def _run(self, *words: str) -> tuple[float, float, float]:
        """When it began, and how many seconds it took, by the clock and of the processor."""
        command = [sys.executable, "-m", "nightshift", *words]
        began = time.perf_counter()
        process = subprocess.Popen(command, env=self._farm.environment, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        assert status == 0, f"nightshift {' '.join(words)} ended with {status}"
        return began, seconds, usage.ru_utime + usage.ru_stime


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--ledger", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--devices", type=int, default=100, help="live workers, for each of which four packs wait")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--goal", type=float, default=2.0, help="seconds to an answer, the slowest of the rounds")
    parser.add_argument("--record", default="benchmarks.jsonl")
    options = parser.parse_args()
    if options.jobs * OTHER_SHARE < 2 * 4 * _PACK_SIZE * options.devices:
        parser.error("--jobs are too few for so many --devices: the queue would hold all of the other batch")
    return options


if __name__ == "__main__":
    sys.exit(main())
