"""Holds the code to its sizes: short modules and functions, shallow nesting, few parameters, names that say something.

Reads every Python file that git tracks or would track (without git: every one in the tree) except tests, docs and
database migrations. Prints one line for each violation, and exits 1 if there was any.

    python .ci/sizes.py [FOLDER]
"""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

MAX_MODULE_LINES = 300
MAX_FUNCTION_LINES = 40
MAX_NESTING = 3
MAX_PARAMETERS = 6
VAGUE_NAMES = frozenset({"utils", "helpers", "common", "base", "manager"})

_UNMEASURED = ("tests/", "docs/")
_NOT_SOURCE = frozenset({".git", "build", "dist"})
#: Typer's options are parameters, so a command has as many as it has options.
_COMMANDS = "producer/cli/"
_DEEPER = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.Match)
_OWN_SCOPE = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)

Function = ast.FunctionDef | ast.AsyncFunctionDef


def source_files(folder: Path) -> list[str]:
    """Paths relative to the folder, with forward slashes, sorted."""
    listed = _listed_by_git(folder) or _found_in_tree(folder)
    return sorted(path for path in listed if _is_measured(path) and (folder / path).is_file())


def _listed_by_git(folder: Path) -> list[str]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.py"]
    try:
        answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return []
    return [path for path in answer.stdout.split("\0") if path]


def _found_in_tree(folder: Path) -> list[str]:
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if _may_hold_source(Path(parent, name))]
        found += [Path(parent, name).relative_to(folder).as_posix() for name in names if name.endswith(".py")]
    return found


def _may_hold_source(folder: Path) -> bool:
    return folder.name not in _NOT_SOURCE and not (folder / "pyvenv.cfg").exists()


def _is_measured(path: str) -> bool:
    return not path.startswith(_UNMEASURED) and "/migrations/versions/" not in path


def violations(path: str, text: str) -> Iterator[str]:
    """``path:line: what is too much`` for each violation in one file."""
    vague = VAGUE_NAMES & {part.removesuffix(".py") for part in path.split("/")}
    if vague:
        yield f"{path}:1: {min(vague)!r} says nothing; name the file after what is in it"
    num_lines = text.count("\n")
    if num_lines > MAX_MODULE_LINES:
        yield f"{path}:{num_lines}: {num_lines} lines, at most {MAX_MODULE_LINES}"
    for node in ast.walk(ast.parse(text, path)):
        if isinstance(node, Function):
            yield from (f"{path}:{node.lineno}: {node.name} has {excess}" for excess in _excesses(path, node))


def _excesses(path: str, function: Function) -> Iterator[str]:
    measured = [
        (_num_body_lines(function), MAX_FUNCTION_LINES, "lines"),
        (_nesting(function), MAX_NESTING, "levels of nesting"),
    ]
    if not path.startswith(_COMMANDS):
        measured.append((_num_parameters(function), MAX_PARAMETERS, "parameters"))
    return (f"{size} {unit}, at most {limit}" for size, limit, unit in measured if size > limit)


def _num_body_lines(function: Function) -> int:
    has_docstring = ast.get_docstring(function) is not None and len(function.body) > 1
    first = function.body[1 if has_docstring else 0]
    return (function.end_lineno or first.lineno) - first.lineno + 1


def _nesting(node: ast.AST, level: int = 0) -> int:
    deepest = level
    for child in ast.iter_child_nodes(node):
        if isinstance(child, _OWN_SCOPE):
            continue
        goes_deeper = isinstance(child, _DEEPER) and not _is_elif(node, child)
        deepest = max(deepest, _nesting(child, level + goes_deeper))
    return deepest


def _is_elif(node: ast.AST, child: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(child, ast.If) and node.orelse == [child]


def _num_parameters(function: Function) -> int:
    named = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
    return len(named) - bool(named and named[0].arg in ("self", "cls"))


def main() -> int:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1]
    found = [
        line for path in source_files(folder) for line in violations(path, (folder / path).read_text(encoding="utf-8"))
    ]
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
