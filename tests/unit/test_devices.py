"""Which devices a host has, found without torch. `nvidia-smi` is played by a small program on PATH."""

from pathlib import Path

import pytest

from schemas.errors import PairError, SettingsError
from schemas.settings import Settings
from worker.host.assignments import Assignment, assignments
from worker.host.devices import Device, devices


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 0\necho 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_auto_is_every_gpu(two_gpus: None) -> None:
    assert devices("auto") == [Device("cuda", "0"), Device("cuda", "1")]
    assert devices("auto")[1].environment == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "1"}


def test_auto_is_the_cpu_where_there_is_no_gpu(no_gpu: None) -> None:
    assert devices("auto") == [Device("cpu")]
    assert devices("auto")[0].environment == {}


def test_the_operators_own_choice_of_visible_gpus_is_kept(two_gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert devices("auto") == [Device("cuda", "1")]


@pytest.mark.parametrize("setting", ["2", "0,5"])
def test_a_gpu_that_is_not_there_is_refused(two_gpus: None, setting: str) -> None:
    with pytest.raises(SettingsError, match=r"is not here; this host has 0, 1"):
        devices(setting)


@pytest.mark.parametrize("setting", ["", "gpu", "0,", "-1", "cpu,0"])
def test_what_is_no_device_is_refused(two_gpus: None, setting: str) -> None:
    with pytest.raises(SettingsError, match="devices is auto, cpu, or GPU indices"):
        devices(setting)


def test_a_gpu_named_twice_is_refused(two_gpus: None) -> None:
    with pytest.raises(SettingsError, match="twice"):
        devices("0,0")


def test_a_broken_driver_is_said_instead_of_rendering_on_the_cpu(tmp_path: Path, two_gpus: None) -> None:
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho Driver/library version mismatch\nexit 18\n")
    with pytest.raises(SettingsError, match="Driver/library version mismatch"):
        devices("auto")


def assigned(tmp_path: Path, *pairs: str, chosen: str | None = None, **settings: str) -> list[tuple[str, str]]:
    return [(str(one.device), one.pair) for one in assignments(Settings(home=tmp_path, **settings), pairs, chosen)]


def test_one_pair_has_every_device(two_gpus: None, tmp_path: Path) -> None:
    assert assigned(tmp_path) == [("cuda:0", "tiny"), ("cuda:1", "tiny")]
    assert assigned(tmp_path, "full") == [("cuda:0", "full"), ("cuda:1", "full")]
    assert assigned(tmp_path, "full", chosen="1") == [("cuda:1", "full")]
    assert assigned(tmp_path, "full", devices="0") == [("cuda:0", "full")]


def test_each_of_several_pairs_has_its_own_devices(two_gpus: None, tmp_path: Path) -> None:
    assert assigned(tmp_path, "tiny:1", "full:0", "tiny:cpu") == [
        ("cuda:1", "tiny"),
        ("cuda:0", "full"),
        ("cpu", "tiny"),
    ]


def test_processes_that_share_the_cpu_have_names_of_their_own(no_gpu: None, tmp_path: Path) -> None:
    assert assigned(tmp_path, "tiny:cpu,cpu", "full:cpu") == [("cpu:0", "tiny"), ("cpu:1", "tiny"), ("cpu:2", "full")]
    assert Assignment(Device("cpu", "1"), "tiny").device.environment == {}


@pytest.mark.parametrize(
    ("pairs", "chosen", "sentence"),
    [
        (["tiny", "full"], None, "each names its devices: --pair tiny:0,1 --pair full:2"),
        (["tiny:0", "full"], None, "each names its devices"),
        (["tiny:0", "full:0,1"], None, "cuda:0 is to have two pairs"),
        (["tiny:0"], "1", "devices are named once"),
        (["tiny:"], None, "devices is auto, cpu, or GPU indices"),
        (["tiny:5"], None, "GPU 5 is not here"),
    ],
)
def test_devices_that_are_not_said_or_said_twice_are_refused(
    two_gpus: None, tmp_path: Path, pairs: list[str], chosen: str | None, sentence: str
) -> None:
    with pytest.raises(SettingsError, match=sentence):
        assigned(tmp_path, *pairs, chosen=chosen)


def test_a_pair_that_is_not_known_is_refused(two_gpus: None, tmp_path: Path) -> None:
    with pytest.raises(PairError):
        assigned(tmp_path, "tiny:0", "nobody:1")
