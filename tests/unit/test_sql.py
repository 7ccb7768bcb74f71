"""SQL has bound parameters alone: nobody writes a value into a statement's text."""

import ast
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("schemas", "farm", "producer", "worker")
#: take a statement as text
RAW = {"text", "timed", "TextClause", "exec_driver_sql", "literal_column", "executescript", "from_statement"}
EXECUTE = {"execute", "executemany", "scalar", "scalars"}
KEYWORDS = ("SELECT ", "INSERT ", "UPDATE ", "DELETE ", "CREATE ", "DROP ", "ALTER ", "PRAGMA ", " WHERE ")
#: pragmas take no parameters, and the words of two dialects differ; all that goes in are constants beside them
KNOWN = {
    ("schemas/column_types.py", "statement"),
    ("farm/claims.py", "whole.format(claim=claim)"),
    ("farm/queueing.py", "oldest.format(**words)"),
    ("farm/queueing.py", "more.format(**words)"),
    ("schemas/column_types.py", """f"'{value}'\""""),
    ("farm/database.py", "f'PRAGMA {pragma}'"),
    ("farm/schema.py", "f'SET LOCAL lock_timeout = {round(_LOCK_SECONDS * 1000)}'"),
    ("farm/sqlite_memory.py", "pragma"),
    ("farm/staging.py", "_insertion(num_rows)"),
    ("producer/expanding/repeats.py", "f'PRAGMA cache_size = -{_CACHE_KIB}'"),
    ("producer/upkeep/verified_rows.py", "f'PRAGMA quick_check({_SHOWN})'"),
}


def sources() -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if "/migrations/" not in name:
                yield name, ast.parse(path.read_text(), name)


def is_written(node: ast.AST, constants: Collection[str]) -> bool:
    """Whether every character of the text stands in the source, here or as a constant of the module."""
    if isinstance(node, ast.IfExp):
        return is_written(node.body, constants) and is_written(node.orelse, constants)
    if isinstance(node, ast.Name):
        return node.id in constants
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def written_constants(tree: ast.Module) -> set[str]:
    """Names of the module's own that are given one text, once and for all."""
    given = [node for node in tree.body if isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "Final"]
    return {ast.unparse(node.target) for node in given if node.value is not None and is_written(node.value, ())}


def is_put_together(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.JoinedStr)
        or (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod | ast.Add))
        or (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("format", "join")
        )
    )


def called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def faults(name: str, tree: ast.Module) -> Iterator[str]:
    constants = written_constants(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args:
            statement = node.args[0]
            is_safe = is_written(statement, constants) or is_known(name, statement) or is_of_pillow(node)
            if called(node) in RAW and not is_safe:
                yield f"{name}:{node.lineno}: {ast.unparse(node)}"
            if called(node) in EXECUTE and is_put_together(node.args[0]) and not is_known(name, node.args[0]):
                yield f"{name}:{node.lineno}: {ast.unparse(node)}"
        is_sql = is_put_together(node) and any(word in part for part in texts(node) for word in KEYWORDS)
        if is_sql and not is_known(name, node):
            yield f"{name}:{node.lineno}: {ast.unparse(node)}"


def is_of_pillow(node: ast.Call) -> bool:
    return ast.unparse(node.func) == "draw.text"


def is_known(name: str, node: ast.AST) -> bool:
    return (name, ast.unparse(node)) in KNOWN


def texts(node: ast.AST) -> list[str]:
    return [part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)]


def test_no_statement_is_put_together_from_text() -> None:
    assert [fault for name, tree in sources() for fault in faults(name, tree)] == []


@pytest.mark.parametrize(
    "code",
    [
        'tx.execute(f"SELECT {name}")',
        'tx.execute("SELECT %s" % name)',
        'tx.execute("SELECT " + name)',
        'tx.execute("SELECT {}".format(name))',
        "tx.execute(text(name))",
        'statement = f"DELETE FROM jobs WHERE name = {name}"',
        "connection.exec_driver_sql(statement)",
        "literal_column(name)",
    ],
)
def test_one_that_was_would_be_found(code: str) -> None:
    assert list(faults("farm/ledger.py", ast.parse(code)))
