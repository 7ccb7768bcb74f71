"""The units of deploy/systemd: what systemd itself says of them, and the commands and settings that they name."""

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.errors import InputError
from schemas.settings import Settings
from tests.unit.test_compose import assert_is_a_command
from worker.host.exit_codes import EXIT_OUT_OF_SERVICE
from worker.host.supervisor import KILL_SECONDS

UNITS = sorted((Path(__file__).parents[2] / "deploy" / "systemd").glob("*.service"))
WITHOUT_WORKERS = {"nightshift-dispatcher", "nightshift-web"}
INSTALLED = "/opt/nightshift/bin/nightshift"


def service(unit: Path) -> configparser.SectionProxy:
    """Its section; of a key that comes again, such as Environment, the last."""
    parser = configparser.RawConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(unit)
    return parser["Service"]


def verified(unit: Path, folder: Path, text: str) -> str:
    """What systemd says of the unit, with the program where it is here."""
    program = Path(sys.executable).parent / "nightshift"
    copy = folder / unit.name
    copy.write_text(text.replace(INSTALLED, str(program)))
    return subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True).stderr


def test_there_is_a_unit_for_a_farm_on_one_machine_and_three_for_a_farm_of_several() -> None:
    commands = {unit.stem: service(unit)["ExecStart"] for unit in UNITS}
    assert commands == {
        "nightshift": f"{INSTALLED} up",
        "nightshift-dispatcher": f"{INSTALLED} dispatcher",
        "nightshift-web": f"{INSTALLED} web",
        "nightshift-worker": f"{INSTALLED} worker",
    }


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_has_nothing_to_say_against_a_unit(unit: Path, tmp_path: Path) -> None:
    text = unit.read_text()
    assert verified(unit, tmp_path, text) == ""
    assert "KillModes" in verified(unit, tmp_path, text.replace("[Install]", "KillModes=mixed\n[Install]"))


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_names_a_command_and_settings_that_there_are(unit: Path) -> None:
    assert_is_a_command(service(unit)["ExecStart"].split()[1:])
    name, _, value = service(unit)["Environment"].partition("=")
    assert name.removeprefix("NIGHTSHIFT_").lower() in Settings.model_fields
    assert value == f"/var/lib/{service(unit)['StateDirectory']}"


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_what_ends_comes_back_unless_its_settings_or_devices_are_no_good(unit: Path) -> None:
    codes = {InputError.exit_code} if unit.stem in WITHOUT_WORKERS else {InputError.exit_code, EXIT_OUT_OF_SERVICE}
    assert service(unit)["Restart"] == "always"
    assert set(map(int, service(unit)["RestartPreventExitStatus"].split())) == codes


@pytest.mark.parametrize(
    "unit", [unit for unit in UNITS if unit.stem not in WITHOUT_WORKERS], ids=lambda unit: unit.stem
)
def test_only_the_process_that_stops_its_workers_gently_gets_the_signal(unit: Path) -> None:
    assert service(unit)["KillMode"] == "mixed"


@pytest.mark.parametrize(
    "unit", [unit for unit in UNITS if unit.stem not in WITHOUT_WORKERS], ids=lambda unit: unit.stem
)
def test_a_worker_has_the_time_that_its_stop_takes(unit: Path) -> None:
    assert int(service(unit)["TimeoutStopSec"]) > Settings().stop_seconds + KILL_SECONDS
