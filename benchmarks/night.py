"""A whole night in ten minutes: bulk work by the commands that a user types, disturbed on the way, and looked at.

400 prompts × 3 seeds × refiner off and at 0.8 make 2,400 jobs. A farm with two workers renders them in a window that
closes twice. Meanwhile the batch is paused twice, another one is put before it and then canceled, and workers are
killed twice. Then the batch is exported and read back by the libraries that train on such sets. What is checked is
asked of the ledger and of the files, and not of what the commands say. Exits 1 where anything is not as it should be.

Windows know whole minutes, so this takes what the clock takes: a machine that is done before the second closing is told
to take more steps.
"""

import argparse
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
from sqlalchemy import select

from benchmarks.night_checks import Check, Course, ledger_checks, ledger_figures
from benchmarks.night_datasets import dataset_checks
from benchmarks.record import append
from farm.database import Database
from schemas.tables import Worker
from schemas.windows import Hours
from tests.servers import temporary_folder

_MINUTE = timedelta(minutes=1)
_NUM_WORKERS = 2
_PROMPTS = Path(__file__).with_name("parti-400.tsv")
#: other seeds than the night's: images that would be linked are not rendered
_OTHER_SEEDS = "11:20:1"


class Farm:
    """`nightshift up`, a second `nightshift worker` beside it, and the commands, in a home of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        settings = {"HOME": str(folder), "DEVICES": "cpu", "LEASE_SECONDS": "20"}
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("NIGHTSHIFT_")}
        self._environment |= {f"NIGHTSHIFT_{name}": value for name, value in settings.items()}
        self._processes: list[subprocess.Popen[bytes]] = []
        self.database = Database(f"sqlite:///{folder / 'ledger.sqlite3'}")

    def start(self) -> None:
        self.say("db upgrade")
        self._begin("up --pair tiny")
        deadline = time.monotonic() + 180
        while (num_ready := len(self._ready_workers())) < _NUM_WORKERS:
            assert time.monotonic() < deadline, (self.folder / "farm.log").read_text()
            if num_ready == len(self._processes):
                self._begin("worker --pair tiny --devices cpu")
            time.sleep(1)

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
            process.wait()
        self.database.close()

    def say(self, command: str) -> str:
        """Runs it, shows it with what it prints, and returns that."""
        tell(f"$ nightshift {command}")
        process = subprocess.Popen(self._line(command), env=self._environment, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            print(f"          {line}", end="", flush=True)
        if process.wait() != 0:
            raise RuntimeError(f"nightshift {command} ended with {process.returncode}")
        return "".join(said)

    def kill_a_worker(self, luck: random.Random) -> None:
        """SIGKILL for one of our own worker processes that are ready; its supervisor starts another."""
        ready = self._ready_workers()
        process_id = luck.choice(ready)
        tell(f"SIGKILL for worker process {process_id}, one of {len(ready)}")
        os.kill(process_id, signal.SIGKILL)

    def _ready_workers(self) -> list[int]:
        ours = {child.pid for process in self._processes for child in psutil.Process(process.pid).children(True)}
        with self.database.begin(read_only=True) as tx:
            found = tx.execute(select(Worker.process_id).where(Worker.state == "ready")).scalars()
            return sorted(ours.intersection(found))

    def _begin(self, command: str) -> None:
        tell(f"$ nightshift {command} &")
        with (self.folder / "farm.log").open("ab") as log:
            started = subprocess.Popen(self._line(command), env=self._environment, stdout=log, stderr=log)
        self._processes.append(started)

    @staticmethod
    def _line(command: str) -> list[str]:
        return [sys.executable, "-m", "nightshift", *shlex.split(command)]


def main() -> int:
    options = _options()
    started = time.monotonic()
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        farm = Farm(folder)
        stack.callback(farm.stop)
        farm.start()
        course = _night(farm, options)
        ended = time.monotonic()
        checks = ledger_checks(farm.database, course, options.prompts * 6)
        checks += _exports(farm, options)
        figures = ledger_figures(farm.database, course)
    return _verdict(checks, figures | {"minutes": round((ended - started) / 60, 1)}, options)


def _night(farm: Farm, options: argparse.Namespace) -> Course:
    """From evening to morning."""
    luck = random.Random(options.luck)
    course = Course(_openings(datetime.now(UTC)))
    asked = f"--limit {options.prompts} --set width=64 --set height=64 --set num_inference_steps={options.steps}"
    asked += f" --window '{_written(course.openings)}'"
    sweeps = "--sweep seed=1,2,3 --sweep refiner.start=off,0.8"
    farm.say(f"plan {_PROMPTS} {asked} {sweeps}")
    farm.say(f"submit {_PROMPTS} --name night {asked} {sweeps}")
    farm.say(f"submit {_PROMPTS} --name other --priority 1 {asked} --sweep seed={_OTHER_SEEDS}")
    time.sleep(luck.uniform(2, 6))
    _pause(farm, course)
    farm.kill_a_worker(luck)
    _wait_until(course.openings[0].closes + timedelta(seconds=15))
    farm.say("status")
    _wait_until(course.openings[1].opens + timedelta(seconds=2))
    farm.say("reprioritise other --priority 9")
    course.preferred.append(datetime.now(UTC))
    time.sleep(15)
    course.preferred.append(datetime.now(UTC))
    farm.say("cancel other")
    course.canceled_at = datetime.now(UTC)
    _pause(farm, course)
    _wait_until(course.openings[2].opens + timedelta(seconds=luck.uniform(3, 15)))
    farm.kill_a_worker(luck)
    farm.say("watch night")
    for command in ("status", "status night", "verify", "report night"):
        farm.say(command)
    return course


def _pause(farm: Farm, course: Course) -> None:
    farm.say("pause night")
    since = datetime.now(UTC)
    time.sleep(10)
    course.pauses.append(Hours(since, datetime.now(UTC)))
    farm.say("resume night")


def _openings(now: datetime) -> list[Hours]:
    """Open for 45 to 105 seconds, then closed for a minute, open for one, closed for one, and open until it is done."""
    minute = now.replace(second=0, microsecond=0)
    closes = minute + (2 if now.second > 15 else 1) * _MINUTE
    return [
        Hours(minute, closes),
        Hours(closes + _MINUTE, closes + 2 * _MINUTE),
        Hours(closes + 3 * _MINUTE, closes + timedelta(hours=12)),
    ]


def _written(openings: list[Hours]) -> str:
    return ", ".join(f"{hours.opens:%H:%M}-{hours.closes:%H:%M}" for hours in openings) + " UTC"


def _wait_until(instant: datetime) -> None:
    time.sleep(max(0.0, (instant - datetime.now(UTC)).total_seconds()))


def _exports(farm: Farm, options: argparse.Namespace) -> list[Check]:
    for name in ("webdataset", "imagefolder"):
        farm.say(f"export night --format {name} --to {farm.folder / name} --shard-size 1000")
    prompts = [line.split("\t")[0] for line in _PROMPTS.read_text("utf-8").splitlines()[1:]]
    return dataset_checks(farm.folder, prompts[: options.prompts])


def _verdict(checks: list[Check], figures: dict[str, object], options: argparse.Namespace) -> int:
    print(f"\n{'':52} {'found':>14} {'wanted':>14}")
    for check in checks:
        print(f"{check.question:52} {check.found:>14} {check.wanted:>14} {'' if check.is_right else 'WRONG'}")
    print()
    for name, value in figures.items():
        print(f"{name.replace('_', ' '):52} {value:>14}")
    num_wrong = sum(not check.is_right for check in checks)
    chosen = {"prompts": options.prompts, "steps": options.steps}
    append("night", options.record, {**chosen, "checks": len(checks), "wrong": num_wrong, **figures})
    print(f"{num_wrong or 'nothing'} wrong")
    return int(num_wrong > 0)


def tell(what: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S}  {what}", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--prompts", type=int, default=400, help="six images of each")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--luck", type=int, default=None, help="a seed for who is killed when")
    parser.add_argument("--record", default="benchmarks.jsonl")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
