"""An export that is killed, at whatever point, and run again ends with the bytes of one that nobody killed."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nightshift import app
from producer.exports.done_jobs import jobs_again
from schemas.errors import InputError, NotFoundError
from tests.unit.export_farm import ExportFarm, tree

NUM_IMAGES = 120
#: it is killed when so many files are there, temporary ones among them, then started again
KILLED_AT = {
    "imagefolder": (2, 60, NUM_IMAGES),
    "webdataset": (1, 3, 17, 36),
    "parquet": (2, 9, 13),
    "csv": (1, 3, 7),
}


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> ExportFarm:
    found = ExportFarm(tmp_path_factory.mktemp("farm") / "home")
    found.batch([{"prompt": f"cat {n // 3}"} for n in range(NUM_IMAGES)])
    return found


def arguments(file_format: str, folder: Path) -> list[str]:
    options = ["--format", file_format, "--shard-size", "10", "--split", "train=0.8,test=0.2", "--without", "black"]
    return ["1", *options, "--to", str(folder)]


def run_export(variables: dict[str, str], command: list[str]) -> None:
    """In a process of its own."""
    os.environ |= variables
    app(["export", *command])


def killed_export(processes: Any, farm: ExportFarm, command: list[str], num_files: int) -> bool:
    """Whether it was still at work when it was killed."""
    process, folder = processes.Process(target=run_export, args=(farm.variables(), command)), Path(command[-1])
    process.start()
    while process.is_alive() and sum(1 for _ in folder.rglob("*.*")) < num_files:
        time.sleep(0.0005)
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("file_format", KILLED_AT)
def test_killed_again_and_again_it_ends_with_the_same_bytes(
    processes: Any, farm: ExportFarm, tmp_path: Path, file_format: str
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    farm.export(*arguments(file_format, whole))
    first, *later = KILLED_AT[file_format]
    assert killed_export(processes, farm, arguments(file_format, broken), first)
    assert tree(broken) != tree(whole)
    for num in later:  # one that comes late finds nothing left to do, and is not killed
        killed_export(processes, farm, arguments(file_format, broken), num)
    farm.export(*arguments(file_format, broken))
    assert tree(broken) == tree(whole)


@pytest.mark.parametrize("lost", ["00001.tar", "00001.parquet", "00001_stats.json", "README.md"])
def test_what_is_lost_or_cut_off_is_written_again_and_nothing_else(farm: ExportFarm, tmp_path: Path, lost: str) -> None:
    command = ("1", "--format", "webdataset", "--shard-size", 50, "--to", tmp_path / "set")
    farm.export(*command)
    before = tree(tmp_path / "set")
    path = tmp_path / "set" / lost
    path.write_bytes(path.read_bytes()[:-1]) if lost.endswith(("tar", "parquet")) else path.unlink()
    answer = farm.export(*command)
    assert answer["num_written"] == (50 if lost != "README.md" else 0)
    assert tree(tmp_path / "set") == before


@pytest.mark.parametrize("options", [["--copy"], []])
def test_an_image_of_another_size_is_placed_again(farm: ExportFarm, tmp_path: Path, options: list[str]) -> None:
    command = ("1", "--format", "imagefolder", "--to", tmp_path / "set", *options)
    farm.export(*command)
    before = tree(tmp_path / "set")
    path = tmp_path / "set" / "train" / "00000" / "000000003.png"
    path.unlink()
    path.write_bytes(b"")
    farm.export(*command)
    assert tree(tmp_path / "set") == before
    assert (path.stat().st_nlink == 1) == bool(options)


def test_every_ten_seconds_it_says_how_far_it_is_and_what_was_there_counts(
    farm: ExportFarm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("1", "--format", "webdataset", "--shard-size", 50, "--to", tmp_path / "set")
    farm.export(*command)
    (tmp_path / "set" / "00001_stats.json").unlink()
    monkeypatch.setattr("producer.cli.export._TOLD_SECONDS", 0.0)
    command = ["export", *map(str, command)]
    said = CliRunner().invoke(app, command, env=farm.variables()).stderr.splitlines()
    assert said[0] == "exporting: 0 images chosen so far"
    assert said[-1] == "exporting: 100 of 120 images written so far"


@pytest.mark.parametrize("options", [["--copy"], []])
def test_images_that_are_there_are_read_again_where_that_is_asked_for(
    farm: ExportFarm, tmp_path: Path, options: list[str]
) -> None:
    command = ("1", "--format", "imagefolder", "--to", tmp_path / "set", *options)
    farm.export(*command)
    before = tree(tmp_path / "set")
    path = tmp_path / "set" / "train" / "00000" / "000000003.png"
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-1] + b"x")
    farm.export(*command)
    assert tree(tmp_path / "set") != before
    farm.export(*command, "--verify")
    assert tree(tmp_path / "set") == before


def test_a_link_that_leads_nowhere_is_a_strangers_file(farm: ExportFarm, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "mine").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds mine and no export"):
        farm.export("1", "--format", "csv", "--to", folder)


def test_a_batch_that_is_removed_meanwhile_ends_the_export_with_a_sentence(farm: ExportFarm) -> None:
    with pytest.raises(NotFoundError, match="a batch was removed"):
        list(jobs_again(farm.database, [1, 2, NUM_IMAGES + 1]))
