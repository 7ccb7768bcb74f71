"""The commands of docs/operations.md, "Backup and restore": dump, lose everything, restore, go on."""

import os
import re
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from sqlalchemy import make_url

from farm.database import Database
from farm.schema import upgrade
from tests.integration.ledger_farm import open_batch, release_pack
from tests.integration.stored_farm import done_batch, image_path
from tests.servers import PostgresServer

ROOT = Path(__file__).parents[2]
SECTION = (ROOT / "docs" / "operations.md").read_text().split("## Backup and restore")[1].split("\n## ")[0]
DUMP, RESTORE, SQLITE_DUMP, SQLITE_RESTORE = re.findall(r"```\n(.*?)```", SECTION, re.DOTALL)


class Machine:
    """Where the commands run: their paths lie in a folder of the test's."""

    def __init__(self, folder: Path, programs: Path, database_url: str) -> None:
        self.images, self.backup = folder / "home" / "images", folder / "backup"
        self.database_url = database_url
        self._folder, self._programs = folder, programs
        self.backup.mkdir(parents=True)
        self.images.mkdir(parents=True)

    def run(self, commands: str) -> str:
        script = commands.replace("/mnt/images", str(self.images)).replace("/backup", str(self.backup))
        environment = {
            **os.environ,
            "PATH": os.pathsep.join([str(self._programs), str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": str(ROOT),
            "NIGHTSHIFT_HOME": str(self._folder / "home"),
            "NIGHTSHIFT_DATABASE_URL": self.database_url,
            "NIGHTSHIFT_IMAGES_URL": self.images.as_uri(),
        }
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def fill(machine: Machine) -> bytes:
    """A batch that is done and one that waits. Returns the first image."""
    with closing(Database(machine.database_url)) as database:
        upgrade(database)
        done_batch(database, machine.images.as_uri(), ({}, {"width": 64, "height": 64}))
        open_batch(database, 3)
        return image_path(database, 1).read_bytes()


def assert_is_back(machine: Machine, image: bytes, said: str) -> None:
    assert "2 images" in said, said
    with closing(Database(machine.database_url)) as database:
        assert image_path(database, 1).read_bytes() == image
        released = release_pack(database, 2)
        assert released is not None
        assert released.num_jobs == 3


def test_a_ledger_in_postgresql_comes_back(tmp_path: Path, postgres_server: PostgresServer) -> None:
    with postgres_server.new_database() as url:
        machine = Machine(tmp_path, postgres_server.programs, _for_libpq(url))
        image = fill(machine)
        machine.run(DUMP)
    shutil.rmtree(machine.images)
    with postgres_server.new_database() as url:
        machine.images.mkdir()
        machine.database_url = _for_libpq(url)
        assert_is_back(machine, image, machine.run(RESTORE))


def test_a_ledger_in_sqlite_comes_back(tmp_path: Path) -> None:
    machine = Machine(tmp_path, tmp_path, f"sqlite:///{tmp_path / 'home' / 'ledger.sqlite3'}")
    image = fill(machine)
    machine.run(SQLITE_DUMP)
    shutil.rmtree(machine.images)
    machine.images.mkdir()
    Path(machine.database_url.removeprefix("sqlite:///")).write_bytes(b"torn")
    assert_is_back(machine, image, machine.run(SQLITE_RESTORE))


def _for_libpq(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
