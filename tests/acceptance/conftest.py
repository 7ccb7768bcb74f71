"""Farms as users start them: the real command, real worker processes, real servers."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.servers import temporary_folder

WAIT_SECONDS = 120.0


@dataclass
class Commands:
    """Runs `nightshift` in a home folder. What it starts in the background is ended with the test."""

    home: Path
    environment: dict[str, str]
    started: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def run(self, *arguments: str | Path, **variables: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            self._command(arguments),
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            timeout=WAIT_SECONDS,
        )

    def answer(self, *arguments: str | Path) -> Any:
        """What the command prints with --json. It must succeed."""
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def start(self, *arguments: str | Path, **variables: str) -> "subprocess.Popen[bytes]":
        log = self.home / "logs" / f"{arguments[0]}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as stream:
            process = subprocess.Popen(
                self._command(arguments), env={**self.environment, **variables}, stdout=stream, stderr=stream
            )
        self.started.append(process)
        return process

    def log(self, command: str) -> str:
        return (self.home / "logs" / f"{command}.log").read_text()

    def _command(self, arguments: tuple[str | Path, ...]) -> list[str]:
        return [sys.executable, "-m", "nightshift", *map(str, arguments)]

    def processes(self) -> list[psutil.Process]:
        """Every process whose environment has this home."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("NIGHTSHIFT_HOME") == str(self.home):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def end(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.started:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_until(happens: Callable[[], bool], seconds: float = WAIT_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


@pytest.fixture(scope="session")
def pair_cache() -> Iterator[Path]:
    """The tiny pair, made once for all farms."""
    with temporary_folder() as folder:
        yield folder


@pytest.fixture
def commands(pair_cache: Path) -> Iterator[Commands]:
    with temporary_folder() as home:
        (home / "cache").symlink_to(pair_cache)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("NIGHTSHIFT_")}
        commands = Commands(home, {**environment, "NIGHTSHIFT_HOME": str(home), "NIGHTSHIFT_DEVICES": "cpu"})
        try:
            yield commands
        finally:
            commands.end()


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Twelve small jobs: two sizes, three schedulers, with and without the refiner."""
    path = tmp_path / "prompts.tsv"
    lines = ["Prompt\tWidth\tScheduler\trefiner.mode\tCategory"]
    for n in range(12):
        lines.append(f"a cat, number {n}\t{64 + 64 * (n % 2)}\t{('euler', 'Euler a', 'DDIM')[n % 3]}\t"
                     f"{'off' if n == 11 else ''}\tcats")  # fmt: skip
    path.write_text("\n".join(lines) + "\n")
    return path


SMALL = ("--set", "height=64", "--set", "num_inference_steps=5")
