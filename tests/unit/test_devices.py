"""Which devices a host has, found without torch. `nvidia-smi` is played by a small program on PATH."""

from pathlib import Path

import pytest

from schemas.errors import SettingsError
from worker.devices import Device, devices


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
