"""A host with sixteen GPUs and two pairs: the real supervisor, its real processes (``light_worker``), a real ledger.

The tests share the host, and each leaves every device with a worker.
"""

import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Thread
from typing import Any

import pytest
from sqlalchemy import select

from farm.database import Database
from farm.draining import drain, drained, names, stop_draining
from schemas.errors import SettingsError
from schemas.settings import Settings
from schemas.tables import Worker
from tests.integration import light_worker
from tests.integration.ledger_farm import new_ledger
from tests.integration.stand_in_package import stand_in_package
from tests.servers import temporary_folder
from worker.host.assignments import assignments
from worker.host.health import Health, answering
from worker.host.supervisor import Supervisor

pytestmark = pytest.mark.xdist_group("many devices")

GPUS = [str(index) for index in range(16)]
PAIRS = [f"tiny:{','.join(GPUS[:12])}", f"full:{','.join(GPUS[12:])}"]


@dataclass
class Host:
    database: Database
    settings: Settings
    supervisor: Supervisor
    url: str

    def asked(self, path: str) -> tuple[int, dict[str, Any]]:
        try:
            with urllib.request.urlopen(f"{self.url}{path}", timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def devices(self) -> dict[str, dict[str, Any]]:
        return {device["device"]: device for device in self.asked("/readyz")[1]["devices"]}

    def states(self) -> Counter[str]:
        return Counter(device["state"] for device in self.devices().values())

    def wait_until(self, happens: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not happens():
            assert time.monotonic() < deadline, self.devices()
            time.sleep(0.05)

    def all_are_ready(self) -> bool:
        return self.states() == {"ready": 16}


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with temporary_folder() as folder, pytest.MonkeyPatch.context() as patch:
        url = f"sqlite:///{folder / 'ledger.sqlite3'}"
        patch.setenv("PYTHONPATH", stand_in_package(folder, light_worker))
        patch.setenv("NIGHTSHIFT_DATABASE_URL", url)
        patch.setenv("CUDA_VISIBLE_DEVICES", ",".join(GPUS))
        patch.setattr("worker.host.seat._MAX_BACKOFF_SECONDS", 0.01)
        patch.setattr("worker.host.supervisor._DRAINED_LOOK_SECONDS", 0.1)
        settings, database = Settings(home=folder, database_url=url), new_ledger(url)
        supervisor = Supervisor(database, settings, assignments(settings, PAIRS, None))
        running = Thread(target=supervisor.run)
        running.start()
        try:
            with answering(Health(database, supervisor), 0) as port:
                host = Host(database, settings, supervisor, f"http://127.0.0.1:{port}")
                host.wait_until(host.all_are_ready)
                yield host
        finally:
            supervisor.stop()
            running.join()
            database.close()


def test_each_device_has_a_process_of_its_own_that_sees_it_alone_and_has_its_pair(host: Host) -> None:
    with host.database.begin(read_only=True) as tx:
        rows = tx.execute(select(Worker.device, Worker.pair, Worker.process_id)).all()
    assert {(row.device, row.pair) for row in rows} == {
        (f"cuda:{index}", "tiny" if int(index) < 12 else "full") for index in GPUS
    }
    assert host.asked("/healthz")[0] == host.asked("/readyz")[0] == 200
    told = {(device["device"], device["pair"], device["process_id"]) for device in host.devices().values()}
    assert told == {tuple(row) for row in rows}


def test_a_process_that_dies_is_replaced_and_the_others_go_on(host: Host) -> None:
    before = host.devices()
    os.kill(before["cuda:3"]["process_id"], signal.SIGKILL)
    host.wait_until(lambda: host.devices()["cuda:3"]["num_deaths"] == 1 and host.all_are_ready())
    after = host.devices()
    assert {name for name in before if before[name]["process_id"] != after[name]["process_id"]} == {"cuda:3"}


def test_a_drained_device_gets_no_other_worker_until_that_is_taken_back(host: Host) -> None:
    (told,) = drain(host.database, "gpu7/cuda:5")
    host.wait_until(lambda: host.devices()["cuda:5"]["state"] == "drained")
    time.sleep(0.5)  # some looks more
    assert host.states() == {"ready": 15, "drained": 1}
    assert host.devices()["cuda:5"]["num_deaths"] == 0
    with host.database.begin(read_only=True) as tx:
        assert tx.execute(select(Worker.state).where(Worker.id == told.id)).scalar_one() == "stopped"
    assert "gpu7/cuda:5" not in names(host.database, 60.0)
    assert [(row.host, row.device) for row in drained(host.database)] == [("gpu7", "cuda:5")]
    assert len(stop_draining(host.database, "gpu7/cuda:5")) == 1
    assert drained(host.database) == []
    host.wait_until(host.all_are_ready)


def test_a_worker_is_drained_by_its_id_too(host: Host) -> None:
    worker_id = host.devices()["cuda:15"]["worker_id"]
    assert [row.id for row in drain(host.database, worker_id)] == [worker_id]
    host.wait_until(lambda: host.devices()["cuda:15"]["state"] == "drained")
    stop_draining(host.database, worker_id)
    host.wait_until(host.all_are_ready)


def test_a_drained_host_lives_and_is_not_ready(host: Host) -> None:
    assert len(drain(host.database, "gpu7")) >= 16
    host.wait_until(lambda: host.states() == {"drained": 16})
    assert (host.asked("/healthz")[0], host.asked("/readyz")[0]) == (200, 503)
    stop_draining(host.database, "gpu7")
    host.wait_until(host.all_are_ready)


def test_nobody_of_another_name_is_drained(host: Host) -> None:
    assert [drain(host.database, name) for name in ("gpu", "gpu7/", "gpu7/cuda", "%", "")] == [[]] * 5


def test_a_supervisor_that_does_not_look_is_not_live(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.host.health._LIVE_SECONDS", -1.0)
    assert host.asked("/healthz") == (503, {"live": False, "host": os.uname().nodename})


def test_a_ledger_that_does_not_answer_is_said(host: Host) -> None:
    away = Database("postgresql+psycopg://nobody@127.0.0.1:1/nothing")
    with answering(Health(away, host.supervisor), 0) as port:
        status, content = Host(away, host.settings, host.supervisor, f"http://127.0.0.1:{port}").asked("/readyz")
    assert (status, content["ready"]) == (503, False)
    assert "127.0.0.1" in content["error"]


def test_other_paths_are_not_there_and_a_taken_port_is_said(host: Host) -> None:
    assert host.asked("/metrics") == (404, {"error": "there are /healthz and /readyz"})
    port = int(host.url.rpartition(":")[2])
    with (
        pytest.raises(SettingsError, match=f"health_port: {port} cannot be listened on"),
        answering(Health(host.database, host.supervisor), port),
    ):
        pass


def test_all_of_them_end_with_the_supervisor(host: Host) -> None:
    """The last of these tests: nothing runs any more after it."""
    processes = [device["process_id"] for device in host.devices().values()]
    host.supervisor.stop()
    host.wait_until(lambda: host.states() == {"waiting": 16})
    assert [pid for pid in processes if os.path.exists(f"/proc/{pid}")] == []
