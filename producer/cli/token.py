"""`nightshift token`: who may ask the web page for what."""

import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from farm.tokens import add_token, all_tokens, revoke_token
from producer.cli.answers import JsonOption, print_json
from producer.cli.session import open_session
from producer.submitting.batch_name import name_flaw
from schemas.errors import InputError
from schemas.printable import printable
from schemas.token import MAX_PRIORITY, TokenRecord, TokenRights, new_token, parsed_scopes, token_sha256

app = typer.Typer()
token = typer.Typer(help="Who may ask the web page for what.", no_args_is_help=True)
app.add_typer(token, name="token")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Whose token it is.")]
ScopeOption = Annotated[
    list[str] | None, typer.Option("--scope", metavar="SCOPE", help="read, submit or operate; may be given again.")
]
PriorityOption = Annotated[
    int, typer.Option("--max-priority", min=0, max=MAX_PRIORITY, help="The highest that its batches may have.")
]
PendingOption = Annotated[
    int | None, typer.Option("--max-pending", min=1, help="Jobs of its batches that have not ended, at the most.")
]


@token.command(epilog="Example: nightshift token new frontend --scope read --scope submit --max-pending 10000")
def new(
    name: NameArgument,
    scopes: ScopeOption = None,
    max_priority: PriorityOption = MAX_PRIORITY,
    max_pending: PendingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a token, and show it this once: the ledger keeps its hash alone."""
    if flaw := name_flaw(name):
        raise InputError(f"the name {printable(name)!r}: {flaw}")
    rights = TokenRights(parsed_scopes(scopes or []), max_priority, max_pending)
    secret = new_token()
    with open_session() as session:
        add_token(session.database, name, token_sha256(secret), rights)
    if as_json:
        print_json({"name": name, "token": secret})
    else:
        print(secret)
        print(f"this is shown once; `nightshift token revoke {printable(name)}` ends it", file=sys.stderr)


@token.command("list", epilog="Example: nightshift token list --json")
def list_tokens(as_json: JsonOption = False) -> None:
    """List the tokens: what each may do, and which were revoked."""
    with open_session() as session:
        found = all_tokens(session.database)
    if as_json:
        print_json([_as_json(record) for record in found])
        return
    if not found:
        print("no tokens yet; `nightshift token new NAME --scope read` makes one")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("token", "scopes", "priority", "pending", "made", "revoked"):
        table.add_column(heading)
    for record in found:
        table.add_row(*_cells(record))
    Console().print(table)


@token.command(epilog="Example: nightshift token revoke frontend")
def revoke(name: NameArgument, as_json: JsonOption = False) -> None:
    """End a token, at once and for ever. The batches that it submitted go on."""
    with open_session() as session:
        revoke_token(session.database, name)
    if as_json:
        print_json({"name": name, "revoked": True})
    else:
        print(f"token {printable(name)} is revoked")


def _cells(record: TokenRecord) -> list[str]:
    rights, revoked = record.rights, record.revoked_at
    pending = "any" if rights.max_pending is None else f"{rights.max_pending:,}"
    scopes = " ".join(sorted(rights.scopes))
    times = [f"{record.created_at:%Y-%m-%d}", f"{revoked:%Y-%m-%d %H:%M}" if revoked else ""]
    return [escape(printable(record.name)), scopes, f"≤ {rights.max_priority}", pending, *times]


def _as_json(record: TokenRecord) -> dict[str, Any]:
    return {
        "name": record.name,
        "scopes": sorted(record.rights.scopes),
        "max_priority": record.rights.max_priority,
        "max_pending": record.rights.max_pending,
        "created_at": record.created_at.isoformat(),
        "revoked_at": record.revoked_at.isoformat() if record.revoked_at else None,
    }
