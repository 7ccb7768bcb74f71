"""One run: a plan of faults, done one by one to a farm that works, and then the question whether all is well."""

import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy.exc import DBAPIError

from tests.chaos.cleaning import leftovers
from tests.chaos.farm import Farm, Ledger
from tests.chaos.faults import Fault
from tests.chaos.invariants import Expected, violations
from tests.chaos.rules import Rules
from tests.chaos.services import Services
from tests.chaos.watch import STALL_SECONDS, Watch

_DRAIN_SECONDS = 240.0
_FIRST_JOBS = 12


@dataclass(frozen=True)
class Plan:
    """What happens in a run. All of it comes from the seed, but for the moments at which processes come by."""

    seed: int
    ledger: Ledger
    faults: Sequence[Fault]
    num_jobs: int = _FIRST_JOBS
    short: bool = True
    rules: Rules = field(default_factory=Rules)
    stall_seconds: float = STALL_SECONDS


@dataclass
class Report:
    """How a run went. ``violations`` is empty where every promise was kept."""

    seed: int
    ledger: str
    faults: list[str]
    violations: list[str]
    seconds: float
    num_jobs: int
    num_failed: int
    num_lost_packs: int
    longest_stall_seconds: float
    slowest_recovery_seconds: float
    timings: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        return vars(self)


def execute(plan: Plan, shared: Services, folder: Path) -> Report:
    """Runs the plan in the folder, which keeps everything. Raises only where the harness itself fails."""
    chance = random.Random(plan.seed)
    folder.mkdir(parents=True)
    started = time.monotonic()
    with Farm(folder, shared, plan.ledger, plan.rules) as farm, Watch(farm, plan.stall_seconds) as watch:
        story = _Story(farm, watch, chance, plan)
        story.tell()
        found = [*watch.violations, *story.violations, *violations(farm, story.expected())]
        if not found:
            found += leftovers(farm)
        states = dict(farm.ask("SELECT state, count(*) FROM jobs GROUP BY state"))
        lost = farm.ask("SELECT count(*) FROM packs WHERE state = 'expired'")[0][0]
    report = Report(
        seed=plan.seed,
        ledger=plan.ledger,
        faults=[fault.name for fault in plan.faults],
        violations=found,
        seconds=round(time.monotonic() - started, 1),
        num_jobs=sum(states.values()),
        num_failed=states.get("failed", 0),
        num_lost_packs=lost,
        longest_stall_seconds=round(watch.longest_stall_seconds, 1),
        slowest_recovery_seconds=round(story.slowest_recovery_seconds, 1),
        timings=story.timings,
    )
    (folder / "report.json").write_text(json.dumps(report.as_json(), indent=2))
    return report


class _Story:
    """A plan in the making."""

    def __init__(self, farm: Farm, watch: Watch, chance: random.Random, plan: Plan) -> None:
        self.violations: list[str] = []
        self.slowest_recovery_seconds = 0.0
        self.timings: dict[str, float] = {}
        self._farm = farm
        self._watch = watch
        self._chance = chance
        self._plan = plan

    def tell(self) -> None:
        self._farm.submit(self._farm.next_rows(_FIRST_JOBS))
        for fault in self._plan.faults:
            self._suffer(fault)
            if self._watch.stalled.is_set():
                return
        while self._farm.submitted < self._plan.num_jobs and (rows := self._farm.next_rows(12)):
            self._farm.submit(rows)
        self._drain()

    def expected(self) -> Expected:
        prompts = {json.loads(spec)["prompt"] for (spec,) in self._farm.ask("SELECT spec FROM jobs")}
        broken = {prompt for word in self._farm.fired("worker", "decoding") for prompt in word["prompts"]}
        return Expected(self._farm.submitted, {one for one in prompts if one.startswith("poison")}, broken)

    def _suffer(self, fault: Fault) -> None:
        started = time.monotonic()
        self._farm.feed(_FIRST_JOBS)
        self._note(f"fault {fault.number}: {fault.name}")
        try:
            fault.inject(self._farm, self._chance, self._plan.short)
        except (TimeoutError, AssertionError, OSError) as error:
            self.violations.append(f"fault {fault.number}, {fault.name}: {error or type(error).__name__}")
            self._note(self.violations[-1])
            return
        finally:
            self._watch.look_at_files()
            self._watch.forgive()
        self._note(f"{fault.name} is over after {time.monotonic() - started:.1f} s")
        self._recover(fault)
        self.timings[fault.name] = round(time.monotonic() - started, 1)
        self._note(f"the farm works again after {self.timings[fault.name]:.1f} s")
        time.sleep(self._chance.uniform(0, 0.3 if self._plan.short else 1))

    def _note(self, sentence: str) -> None:
        with (self._farm.folder / "story.txt").open("a") as story:
            story.write(f"{datetime.now(UTC):%H:%M:%S.%f} {sentence}\n")

    def _recover(self, fault: Fault) -> None:
        """Waits for the next claim, or the end of a job; longer than it may take, to be able to say how long."""
        self._farm.feed(2 * self._plan.rules.pack_size)
        healed, before = time.monotonic(), self._num_signs()
        while self._num_signs() == before and self._farm.num_waiting():
            if self._watch.stalled.is_set():
                return
            time.sleep(0.1)
        seconds = time.monotonic() - healed
        self.slowest_recovery_seconds = max(self.slowest_recovery_seconds, seconds)
        most = self._plan.rules.recovery_seconds
        if seconds > most:
            self.violations.append(
                f"fault {fault.number}, {fault.name}: the farm worked again after {seconds:.1f} s, at most {most:.1f}"
            )

    def _num_signs(self) -> int:
        return int(
            self._farm.ask(
                "SELECT count(*) FROM chaos_moves WHERE (kind = 'pack' AND new = 'running')"
                " OR (kind = 'job' AND new = 'done')"
            )[0][0]
        )

    def _drain(self) -> None:
        deadline = time.monotonic() + _DRAIN_SECONDS
        while self._num_unfinished() and not self._watch.stalled.is_set():
            if time.monotonic() > deadline:
                self.violations.append(f"{self._num_unfinished()} jobs had not ended after {_DRAIN_SECONDS:g} s")
                return
            time.sleep(0.2)

    def _num_unfinished(self) -> int:
        try:
            return self._farm.num_unfinished()
        except DBAPIError:  # still on its way up
            return 1
