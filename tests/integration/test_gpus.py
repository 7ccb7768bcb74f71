"""GPUs by NVML, where there is none: a library that stands in for the driver's (``stand_in_nvml.c``) answers its calls.

It is found as the driver's is, by its name. Everything above it is ours and real.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from sqlalchemy import select

from schemas.settings import Settings
from schemas.tables import Worker
from tests.integration import gpu_worker
from tests.integration.ledger_farm import new_ledger
from tests.integration.stand_in_package import stand_in_package
from worker.host.assignments import assignments
from worker.host.supervisor import Supervisor

ROOT = Path(__file__).parents[2]
SOURCE = Path(__file__).parent / "stand_in_nvml.c"
GIB = 1024**3

H200 = f"H200 GPU-aa {2 * GIB} {140 * GIB} 75 61 412500"
#: it measures no power
T4 = f"T4 GPU-bb 0 {16 * GIB} 0 40 -1"
LOST = "lost GPU-bb 0 0 0 0 0"
#: it shares the machine's memory
GB10 = "GB10 GPU-cc -1 -1 3 50 -1"
#: a GPU that is divided measures no utilisation, its instances neither heat nor power
DIVIDED = f"H200 GPU-aa {2 * GIB} {140 * GIB} -1 61 412500"
INSTANCES = [f"mig H200-1g.18gb MIG-1g-{number} {number * GIB} {16 * GIB} -1 -1 -1" for number in (1, 2)]


@dataclass
class Driver:
    """What the driver says, for a process with this ``environment``."""

    environment: dict[str, str]
    _file: Path

    def says(self, *gpus: str) -> None:
        whole = self._file.with_suffix(".new")
        whole.write_text("".join(f"{gpu}\n" for gpu in gpus))
        whole.replace(self._file)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Driver:
    if shutil.which("gcc") is None:
        pytest.skip("the stand-in for the NVIDIA driver's library is compiled by gcc, which is not installed")
    folder = tmp_path_factory.mktemp("driver")
    command = ["gcc", "-shared", "-fPIC", "-Wall", "-Werror", "-o", str(folder / "libnvidia-ml.so.1"), str(SOURCE)]
    subprocess.run(command, check=True)
    program = folder / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 0\necho 1\n")
    program.chmod(0o755)
    given = {"LD_LIBRARY_PATH": str(folder), "STAND_IN_NVML": str(folder / "gpus")}
    return Driver(given, folder / "gpus")


class Host:
    """A process on a machine with that driver, which is asked again and again."""

    def __init__(self, driver: Driver) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.gpu_host"], cwd=ROOT, env={**os.environ, **driver.environment},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def asked(self, question: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{question}\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate(timeout=30)


@pytest.fixture(scope="module")
def host(driver: Driver) -> Iterator[Host]:
    host = Host(driver)
    yield host
    host.close()


def test_each_gpu_is_told_and_what_it_does_not_measure_is_left_out(driver: Driver, host: Host) -> None:
    driver.says(H200, T4, GB10)
    assert host.asked("driver") == {
        "driver_version": "580.1",
        "failed": {},
        "readings": [
            {"index": "0", "name": "H200", "uuid": "GPU-aa", "memory_used_bytes": 2 * GIB,
             "memory_total_bytes": 140 * GIB, "utilisation": 0.75, "temperature_celsius": 61, "power_watts": 412.5},
            {"index": "1", "name": "T4", "uuid": "GPU-bb", "memory_used_bytes": 0,
             "memory_total_bytes": 16 * GIB, "utilisation": 0.0, "temperature_celsius": 40, "power_watts": None},
            {"index": "2", "name": "GB10", "uuid": "GPU-cc", "memory_used_bytes": None,
             "memory_total_bytes": None, "utilisation": 0.03, "temperature_celsius": 50, "power_watts": None},
        ],
    }  # fmt: skip
    assert host.asked("doctor") == [
        True,
        "driver 580.1; 0: H200, 2.0 of 140 GiB in use, 61 °C, 1: T4, 0.0 of 16 GiB in use, 40 °C, 2: GB10, 50 °C",
    ]
    told = host.asked("metrics")
    assert told["memory_used_bytes"] == {"cuda:0": 2 * GIB, "cuda:1": 0}
    assert told["power_watts"] == {"cuda:0": 412.5}
    assert told["driver_up"] == {"": 1}
    assert told["failed"] == {}


def test_a_gpu_that_falls_off_its_bus_takes_no_other_along(driver: Driver, host: Host) -> None:
    driver.says(H200, LOST)
    assert [reading["index"] for reading in host.asked("driver")["readings"]] == ["0"]
    assert host.asked("doctor") == [
        False,
        "driver 580.1; 0: H200, 2.0 of 140 GiB in use, 61 °C; GPU 1 does not answer (GPU is lost): reset it by"
        " nvidia-smi, or start this machine again",
    ]
    told = host.asked("metrics")
    assert (told["failed"], told["driver_up"], told["temperature_celsius"]) == ({"cuda:1": 1}, {"": 1}, {"cuda:0": 61})


def test_a_worker_watches_its_own_gpu_and_says_once_when_it_answers_no_more(driver: Driver, host: Host) -> None:
    driver.says(H200, T4)
    told = host.asked("watch")["told"]
    assert (told["0"][1]["memory_total_bytes"], told["1"][1]["power_watts"]) == (140 * GIB, None)
    driver.says(H200, LOST)
    first, second = host.asked("watch"), host.asked("watch")
    assert first["told"]["0"][1]["utilisation"] == 0.75
    assert first["told"]["1"] == [True, None]
    lost = "GPU 1 does not answer: GPU is lost; nvidia-smi may say more"
    assert (lost in first["logged"], lost in second["logged"]) == (True, False)
    driver.says(H200, T4)
    assert host.asked("watch")["told"]["1"][1]["temperature_celsius"] == 40
    driver.says(H200)
    gone = "GPU 1 does not answer: the driver knows none of that name; nvidia-smi may say more"
    assert gone in host.asked("watch")["logged"]


def test_an_instance_of_a_divided_gpu_is_told_beside_the_whole(driver: Driver, host: Host) -> None:
    driver.says(DIVIDED, *INSTANCES, T4)
    readings = {reading["index"]: reading for reading in host.asked("driver")["readings"]}
    assert list(readings) == ["0", "0:0", "0:1", "1"]
    assert (readings["0"]["utilisation"], readings["0"]["power_watts"]) == (None, 412.5)
    assert (readings["0:1"]["uuid"], readings["0:1"]["memory_used_bytes"]) == ("MIG-1g-2", 2 * GIB)
    ok, said = host.asked("doctor")
    assert ok
    assert said.endswith("; 0 divided (MIG): name the instances for workers in CUDA_VISIBLE_DEVICES")
    (_, watched) = host.asked("watch")["told"]["MIG-1g-1"]
    assert (watched["memory_used_bytes"], watched["power_watts"]) == (GIB, None)
    assert host.asked("metrics")["memory_used_bytes"]["cuda:MIG-1g-1"] == GIB


def test_a_driver_that_fails_is_said(driver: Driver, host: Host) -> None:
    driver.says()
    said = "the NVIDIA driver does not answer: Unknown Error; nvidia-smi may say more"
    assert host.asked("driver") == said
    assert host.asked("doctor") == [False, said]
    assert host.asked("metrics") == {"driver_up": {"": 0}}
    assert host.asked("watch")["told"]["0"] == [True, None]


def test_each_gpu_has_a_process_whose_row_says_how_that_gpu_is(
    driver: Driver, tmp_path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", stand_in_package(tmp_path, gpu_worker))
    monkeypatch.setenv("PATH", f"{driver.environment['LD_LIBRARY_PATH']}:{os.environ['PATH']}")
    monkeypatch.setenv("NIGHTSHIFT_DATABASE_URL", sqlite_url)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    settings, database = Settings(home=tmp_path, database_url=sqlite_url), new_ledger(sqlite_url)
    driver.says(H200, T4)
    supervisor = Supervisor(database, settings, assignments(settings, ["tiny"], None), driver.environment)
    running = Thread(target=supervisor.run)
    running.start()

    def celsius() -> dict[str, int | None]:
        with database.begin(read_only=True) as tx:
            rows = tx.execute(select(Worker.device, Worker.reading)).all()
        return {row.device: row.reading and row.reading["temperature_celsius"] for row in rows}

    def wait_for(expected: dict[str, int | None]) -> None:
        deadline = time.monotonic() + 60
        while celsius() != expected:
            assert time.monotonic() < deadline, celsius()
            time.sleep(0.05)

    try:
        wait_for({"cuda:0": 61, "cuda:1": 40})
        driver.says(H200, LOST)
        wait_for({"cuda:0": 61, "cuda:1": None})
    finally:
        supervisor.stop()
        running.join()
        database.close()
