"""The sizes that `make check` holds the code to, on small trees of our own."""

import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

SIZES = Path(__file__).parents[2] / ".ci" / "sizes.py"

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def check(folder: Path) -> list[str]:
    """The lines that the check prints about this folder; its exit code must agree with them."""
    done = subprocess.run([sys.executable, SIZES, folder], capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (1 if lines else 0, "")
    return lines


def write(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def function(body: str, parameters: str = "") -> str:
    return f"def f({parameters}):\n" + "".join(f"    {line}\n" for line in body.splitlines())


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)


NESTED_3 = "for a in x:\n    while a:\n        with a:\n            pass"
NESTED_4 = NESTED_3.replace("pass", "if a:\n                pass")
ELIFS = "if a:\n    pass\n" + "elif a:\n    pass\n" * 6
LONG = 'TOO_LONG = """\n' + "\n" * 300 + '"""\n'


@pytest.mark.parametrize(
    "text",
    [
        "x = 1\n" * 300,
        function("x = 1\n" * 40),
        function('"""What it does.\n' + "\n" * 30 + '"""\n' + "x = 1\n" * 40),
        function(NESTED_3),
        function(ELIFS),
        function("pass", "a, b, c, /, d, *, e, f"),
        "class C:\n    def f(self, a, b, c, d, e, f): pass\n",
        function("for b in x:\n    def g():\n" + textwrap.indent(NESTED_3, " " * 8)),
    ],
    ids=["module", "body", "docstring not counted", "nesting", "elif", "parameters", "self not counted", "own scope"],
)
def test_code_at_the_limit_passes(tmp_path: Path, text: str) -> None:
    write(tmp_path, "farm/pack.py", text)

    assert check(tmp_path) == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("x = 1\n" * 301, "301: 301 lines, at most 300"),
        ("\n" + function("x = 1\n" * 41), "2: f has 41 lines, at most 40"),
        (function(NESTED_4), "1: f has 4 levels of nesting, at most 3"),
        (function("pass", "a, b, c, /, d, *, e, f, g"), "1: f has 7 parameters, at most 6"),
        ("class C:\n    async def f(self, a, b, c, d, e, f, g): pass\n", "2: f has 7 parameters, at most 6"),
    ],
    ids=["module", "body", "nesting", "parameters", "method"],
)
def test_code_past_a_limit_is_named_by_file_and_line(tmp_path: Path, text: str, line: str) -> None:
    write(tmp_path, "farm/pack.py", text)

    assert check(tmp_path) == [f"farm/pack.py:{line}"]


@pytest.mark.parametrize(
    ("name", "vague"),
    [
        ("utils.py", "utils"),
        ("farm/helpers.py", "helpers"),
        ("common/pack.py", "common"),
        ("worker/base.py", "base"),
        ("manager.py", "manager"),
    ],
)
def test_a_name_that_says_nothing_is_refused(tmp_path: Path, name: str, vague: str) -> None:
    write(tmp_path, name, "")

    assert check(tmp_path) == [f"{name}:1: {vague!r} says nothing; name the file after what is in it"]


def test_a_command_may_have_as_many_parameters_as_it_has_options(tmp_path: Path) -> None:
    many = function("pass", "a, b, c, d, e, f, g")
    write(tmp_path, "producer/cli/submit.py", many)
    write(tmp_path, "producer/client.py", many)

    assert check(tmp_path) == ["producer/client.py:1: f has 7 parameters, at most 6"]


@pytest.mark.parametrize("name", ["tests/unit/test_x.py", "docs/example.py", "farm/migrations/versions/0001_x.py"])
def test_tests_docs_and_migrations_are_not_measured(tmp_path: Path, name: str) -> None:
    write(tmp_path, name, LONG)

    assert check(tmp_path) == []


@needs_git
def test_with_git_untracked_files_are_measured_and_ignored_or_deleted_ones_are_not(tmp_path: Path) -> None:
    for name in ("tracked.py", "deleted.py", "new.py", "ignored/old.py", "tests/test_x.py"):
        write(tmp_path, name, LONG)
    write(tmp_path, ".gitignore", "ignored/\n")
    git(tmp_path, "init")
    git(tmp_path, "add", "tracked.py", "deleted.py")
    (tmp_path / "deleted.py").unlink()

    assert [line.split(":")[0] for line in check(tmp_path)] == ["new.py", "tracked.py"]


def test_without_git_the_tree_is_walked_except_environments_and_builds(tmp_path: Path) -> None:
    write(tmp_path, ".venv/pyvenv.cfg", "")
    for name in (".venv/lib/torch.py", "build/lib/pack.py", "farm/pack.py", ".ci/check.py"):
        write(tmp_path, name, LONG)

    assert [line.split(":")[0] for line in check(tmp_path)] == [".ci/check.py", "farm/pack.py"]
