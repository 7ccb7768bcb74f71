"""The doctor judges this machine, and tells of the others."""

import json
import socket
import sqlite3
import uuid
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from farm.database import Database
from farm.gpus import GpuReading, Gpus
from farm.schema import upgrade
from farm.workers import WorkerIdentity, count_refused, note_fingerprint, note_worker, register_worker
from nightshift import app as command
from producer.upkeep import machine_checks, server_checks
from producer.upkeep.doctor import Finding, examine
from producer.upkeep.versions import redis_flaw, sqlite_flaw
from schemas.errors import NightshiftError
from schemas.pair import ModelPair
from schemas.settings import Settings

HERE = socket.gethostname()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


def failed_worker(
    settings: Settings, host: str, seen_ago: timedelta = timedelta(0), error: str = "no memory", pair: str = "tiny"
) -> None:
    with closing(Database(settings.database_url, lambda: datetime.now(UTC) - seen_ago)) as database:
        upgrade(database)
        worker = WorkerIdentity(uuid.uuid4().hex, host, 1, "cuda:0", pair)
        register_worker(database, worker)
        note_worker(database, worker.id, "failed", error)


def workers(settings: Settings) -> list[Finding]:
    return [finding for finding in examine(settings) if finding.subject == "worker"]


def test_a_worker_of_this_host_that_failed_just_now_is_bad(settings: Settings) -> None:
    failed_worker(settings, HERE)
    assert workers(settings) == [Finding("worker", False, f"cuda:0 of {HERE}, pair tiny, failed: no memory")]


def test_a_worker_of_this_host_that_failed_long_ago_is_history(settings: Settings) -> None:
    failed_worker(settings, HERE, timedelta(hours=2))
    (finding,) = workers(settings)
    assert finding.ok
    assert "failed, last seen 20" in finding.sentence


def test_a_worker_of_another_host_is_told_of_and_never_bad(settings: Settings) -> None:
    failed_worker(settings, "elsewhere\x1b[31m", error="red\x1b[31m\u202e")
    (finding,) = workers(settings)
    assert finding.ok
    assert finding.sentence.startswith("cuda:0 of elsewhere\\x1b[31m, pair tiny, failed")
    assert finding.sentence.isprintable()


def test_this_hosts_worker_is_found_among_many_others(settings: Settings) -> None:
    failed_worker(settings, HERE)
    for number in range(12):
        failed_worker(settings, f"other-{number}")
    assert [finding.ok for finding in workers(settings) if HERE in finding.sentence] == [False]


def test_messages_that_a_worker_refused_are_told(settings: Settings) -> None:
    with closing(Database(settings.database_url)) as database:
        upgrade(database)
        worker = WorkerIdentity(uuid.uuid4().hex, HERE, 1, "cuda:0", "tiny")
        register_worker(database, worker)
        count_refused(database, worker.id, 3)
    (finding,) = workers(settings)
    assert finding.ok
    assert "loading, messages refused: 3 " in finding.sentence


def test_workers_of_a_pair_that_have_pinned_different_weights_are_named_by_host(settings: Settings) -> None:
    def pinned() -> tuple[bool, str]:
        found = finding(settings, "weights")
        return found.ok, found.sentence

    with closing(Database(settings.database_url)) as database:
        upgrade(database)
        for number, (host, fingerprint) in enumerate([("gpu1", "a"), ("gpu1", "a"), ("gpu2", "a")]):
            register_worker(database, WorkerIdentity(str(number), host, 1, "cuda:0", "tiny"))
            note_fingerprint(database, str(number), fingerprint * 64)
        assert pinned() == (True, "the workers of pair tiny have pinned the same, on 2 hosts")
        note_fingerprint(database, "2", "b" * 64)
        said = (
            "the workers of pair tiny have pinned different weights or options: aaaaaaaa on gpu1; bbbbbbbb on gpu2."
            " Their images differ: copy the model files and the pair's settings from one, then start the others again"
        )
        assert pinned() == (True, said)  # another machine's matter
        register_worker(database, WorkerIdentity("here", HERE, 1, "cuda:0", "tiny"))
        note_fingerprint(database, "here", "a" * 64)
        assert pinned() == (False, said.replace("on gpu1;", f"on {', '.join(sorted(['gpu1', HERE]))};"))


def finding(settings: Settings, subject: str) -> Finding:
    (found,) = [finding for finding in examine(settings) if finding.subject == subject]
    return found


def test_our_own_redis_is_not_judged_by_its_version(settings: Settings) -> None:
    assert finding(settings, "redis version").ok


@pytest.mark.parametrize(
    ("version", "ok"),
    [("6.2.14", False), ("6.2.20", True), ("7.0.15", False), ("7.2.11", True), ("8.2.1", False), ("8.2.2", True),
     ("8.4.0", False), ("8.6.2", False), ("8.6.3", True), ("9.0.0", True), ("unknown", True)],
)  # fmt: skip
def test_versions_of_redis_that_can_be_made_to_run_code_are_known(version: str, ok: bool) -> None:
    assert (redis_flaw(version) is None) == ok


@pytest.mark.parametrize(("version", "ok"), [((3, 40, 1), False), ((3, 51, 2), False), ((3, 51, 3), True)])
def test_versions_of_sqlite_that_can_damage_a_file_are_known(version: tuple[int, int, int], ok: bool) -> None:
    assert (sqlite_flaw(version) is None) == ok


def test_the_ledgers_sqlite_is_told_of_and_is_no_fault(settings: Settings) -> None:
    found = finding(settings, "ledger")
    assert found.ok
    assert ("very rarely" in found.sentence) == (sqlite_flaw(sqlite3.sqlite_version_info) is not None)


def test_a_disk_that_cannot_be_looked_at_is_a_finding(tmp_path: Path) -> None:
    findings = examine(Settings(home=tmp_path, images_url=f"file:///tmp/{'x' * 300}"))
    assert not all(finding.ok for finding in findings)


# GPUs: what the driver answers stands in for a driver, which a machine for tests seldom has


def two_gpus(total_bytes: int) -> Gpus:
    first = GpuReading("0", "NVIDIA H200", 2 * 1024**3, total_bytes, 0.5, 61, 412.5)
    return Gpus("580.1", (first, GpuReading("1", "NVIDIA T4", 0, 16 * 1024**3, None, None, None)))


def test_gpus_are_told_with_their_memory_and_heat(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_checks, "read_gpus", lambda: two_gpus(140 * 1024**3))
    said = finding(settings, "gpus").sentence
    assert said == "driver 580.1; 0: NVIDIA H200, 2.0 of 140 GiB in use, 61 °C, 1: NVIDIA T4, 0.0 of 16 GiB in use"


def test_a_gpu_that_cannot_hold_the_pair_gets_advice(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_checks, "read_gpus", lambda: two_gpus(8 * 1024**3))
    assert 'set offload = "auto"' in finding(settings, "gpus").sentence


def test_gpus_that_are_asked_for_and_have_no_driver_are_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_checks, "read_gpus", lambda: Gpus(None))
    assert finding(Settings(home=tmp_path), "gpus").ok
    assert not finding(Settings(home=tmp_path, devices="0,1"), "gpus").ok


def test_a_driver_that_sees_no_gpu_is_a_fault(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_checks, "read_gpus", lambda: Gpus("580.1"))
    assert "sees no GPU" in finding(settings, "gpus").sentence


def test_models_that_are_not_here_are_a_fault_where_there_are_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = ModelPair.model_validate({"name": "own", "base": {"source": "/nowhere/base.safetensors"}})
    settings = Settings(home=tmp_path, pair="own", pairs={"own": own})
    assert "/nowhere/base.safetensors is not on this machine" in finding(settings, "pair").sentence
    monkeypatch.setattr(machine_checks, "read_gpus", lambda: two_gpus(140 * 1024**3))
    found = finding(settings, "pair")
    assert not found.ok
    assert "/nowhere/base.safetensors is missing here" in found.sentence


def test_the_pairs_of_this_hosts_workers_are_looked_at_and_those_that_are_named(settings: Settings) -> None:
    def said(*pairs: str) -> list[str]:
        return [one.sentence.partition(":")[0] for one in examine(settings, pairs) if one.subject == "pair"]

    assert (said(), said("sdxl", "sdxl")) == (["tiny"], ["sdxl"])
    failed_worker(settings, HERE, pair="sdxl")  # perhaps because its files are not there
    failed_worker(settings, HERE, timedelta(hours=2), pair="full")
    failed_worker(settings, "elsewhere", pair="full")
    assert (said(), said("full"), said("sdxl")) == (["sdxl"], ["full", "sdxl"], ["sdxl"])


def test_the_doctor_takes_pairs_as_a_worker_does(settings: Settings) -> None:
    words = ["doctor", "--json", "--pair", "sdxl:0,1", "--pair", "none:2"]
    done = CliRunner().invoke(command, words, env={"NIGHTSHIFT_HOME": str(settings.home)})
    said = [(one["ok"], one["sentence"]) for one in json.loads(done.stdout) if one["subject"] == "pair"]
    assert [ok for ok, _ in said] == [True, False]
    assert said[0][1].startswith("sdxl: stabilityai/stable-diffusion-xl-base-1.0 and ")
    assert said[1][1].startswith("unknown pair 'none'; known are ")
    assert done.exit_code == 3


def test_models_of_the_hub_are_told_where_they_would_be_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    settings = Settings(home=tmp_path, pair="sdxl")
    assert "would fetch stabilityai/stable-diffusion-xl-base-1.0 and" in finding(settings, "pair").sentence
    for part in ("base", "refiner"):
        (tmp_path / "hub" / f"models--stabilityai--stable-diffusion-xl-{part}-1.0").mkdir(parents=True)
    assert "would fetch" not in finding(settings, "pair").sentence


@pytest.mark.parametrize(("seconds", "said"), [(-600, "600 s ahead of"), (600, "600 s behind"), (1, None)])
def test_a_clock_that_is_off_is_a_fault(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, seconds: float, said: str | None
) -> None:
    monkeypatch.setattr(server_checks, "ledger_time", lambda _: datetime.now(UTC) + timedelta(seconds=seconds))
    if said is None:
        assert server_checks.clock(settings) == "agrees with the ledger's"
        return
    with pytest.raises(NightshiftError, match=said):
        server_checks.clock(settings)


def test_servers_that_do_not_answer_are_said_once_each_with_what_to_do(tmp_path: Path) -> None:
    settings = Settings(
        home=tmp_path, database_url="postgresql://127.0.0.1:1/none", broker_url="redis://127.0.0.1:1/0",
        images_url="file:///proc/nowhere",
    )  # fmt: skip
    found = {one.subject: one.sentence for one in examine(settings) if not one.ok}
    assert found["ledger"].endswith("; start its server, or correct NIGHTSHIFT_DATABASE_URL")
    assert found["redis"].endswith("Connection refused; start it, or correct NIGHTSHIFT_BROKER_URL")
    assert found["image store"].endswith("; mend that, or correct NIGHTSHIFT_IMAGES_URL")
    assert "redis version" not in found


def test_the_disks_of_home_and_images_are_told_and_one_disk_once(tmp_path: Path) -> None:
    together = finding(Settings(home=tmp_path), "disk").sentence
    assert together.endswith(f" GiB free at {tmp_path / 'images'}")
    assert together.count("free at") == 1
    apart = machine_checks.disk(Settings(home=tmp_path, images_url="s3://bucket"))
    assert apart.startswith("images go elsewhere; ")
    with pytest.raises(NightshiftError, match=r"0\.0 GiB free at /proc/images; make room"):
        machine_checks.disk(Settings(home=tmp_path, images_url="file:///proc/images"))


def test_a_ledger_that_is_not_there_is_said_once(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, database_url="postgresql://127.0.0.1:1/none")
    assert [found.subject for found in examine(settings) if "127.0.0.1" in found.sentence] == ["ledger"]
