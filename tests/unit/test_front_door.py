"""What the `nightshift` command imports, and when: nobody waits for Celery to pause a batch."""

import subprocess
import sys
from contextlib import closing
from importlib import import_module
from pathlib import Path

import pytest
import typer

from farm import batches
from farm.database import Database
from farm.schema import ensure_schema
from nightshift import COMMANDS

ROOT = Path(__file__).parents[2]

#: prints a line of all modules that are imported, after the import of the front door and after each command
CHILD = """
import sys, nightshift
print("modules", *sys.modules)
for words in ["--help"], ["pause", "1"], ["status", "1"]:
    sys.argv = ["nightshift", *words]
    try:
        nightshift.main()
    except SystemExit as end:
        assert not end.code, words
    print("modules", *sys.modules)
for name in nightshift.COMMANDS:
    nightshift.loaded(name)
print("modules", *sys.modules)
"""


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> list[set[str]]:
    home = tmp_path_factory.mktemp("home")
    with closing(Database(f"sqlite:///{home}/ledger.sqlite3")) as database:
        ensure_schema(database)
        batches.open_batch(database, batches.create_batch(database, "cats", "tiny", 5))
    environment = {"NIGHTSHIFT_HOME": str(home), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", CHILD], env=environment, capture_output=True, text=True, check=True)
    return [set(line.split()) for line in done.stdout.splitlines() if line.startswith("modules ")]


def top_level(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


def test_the_front_door_and_its_help_import_no_command(imported: list[set[str]]) -> None:
    for modules in imported[:2]:
        assert not {"sqlalchemy", "pydantic", "producer", "worker", "celery", "redis"} & top_level(modules)


def test_a_command_about_one_batch_imports_the_ledger_and_little_else(imported: list[set[str]]) -> None:
    for modules in imported[2:4]:
        assert "farm.ledger" in modules
        assert not {"alembic", "celery", "kombu", "redis", "fsspec", "PIL", "yaml", "http"} & top_level(modules)
        assert "producer.dispatching.dispatcher" not in modules
    assert "producer.cli.show" not in imported[2]


def test_no_command_imports_the_gpu_stack(imported: list[set[str]]) -> None:
    assert "worker.cli" in imported[-1]
    assert not {"torch", "diffusers", "transformers", "numpy", "pyarrow"} & top_level(imported[-1])


@pytest.mark.parametrize("module", sorted({module for module, _ in COMMANDS.values()}))
def test_every_command_of_a_module_is_mounted_from_there(module: str) -> None:
    for name in typer.main.get_group(import_module(module).app).commands:
        assert COMMANDS[name][0] == module
