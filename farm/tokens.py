"""Tokens of `nightshift web` in the ledger: made, found by what a request shows, revoked. Table: tokens."""

from typing import Any, Final

from sqlalchemy import exists, select, update

from farm.database import Transaction, question, transaction
from schemas.errors import InputError, NotFoundError
from schemas.token import Scope, TokenRecord, TokenRights
from schemas.web_tables import Token

_COLUMNS: Final = (
    *(Token.id, Token.name, Token.scopes, Token.max_priority, Token.max_pending, Token.created_at, Token.revoked_at),
)


@transaction
def add_token(tx: Transaction, name: str, sha256: str, rights: TokenRights) -> int:
    """Nothing → valid. Returns its id. Raises InputError where a token has or had this name."""
    values = {"name": name, "sha256": sha256, "scopes": " ".join(sorted(rights.scopes)), "created_at": tx.now}
    values |= {"max_priority": rights.max_priority, "max_pending": rights.max_pending}
    added = tx.execute(tx.insert(Token).values(values).on_conflict_do_nothing().returning(Token.id)).first()
    if added is None:
        raise InputError(f"there is a token {name!r} already, or was one; give this one another name")
    return int(added.id)


@transaction
def revoke_token(tx: Transaction, name: str) -> None:
    """valid → revoked, at once and for ever. Its batches go on. Raises NotFoundError."""
    valid = (Token.name == name, Token.revoked_at.is_(None))
    if not tx.execute(update(Token).where(*valid).values(revoked_at=tx.now)).rowcount:
        raise NotFoundError(f"no valid token {name!r}; `nightshift token list` lists them")


@question
def token_of(tx: Transaction, sha256: str) -> TokenRecord | None:
    """The valid token with this hash."""
    row = tx.execute(select(*_COLUMNS).where(Token.sha256 == sha256, Token.revoked_at.is_(None))).one_or_none()
    return None if row is None else _record(row)


@question
def all_tokens(tx: Transaction) -> list[TokenRecord]:
    """The oldest first, revoked ones too."""
    return [_record(row) for row in tx.execute(select(*_COLUMNS).order_by(Token.id))]


@question
def has_token(tx: Transaction) -> bool:
    """Whether any is valid."""
    return bool(tx.execute(select(exists().where(Token.revoked_at.is_(None)))).scalar_one())


def _record(row: Any) -> TokenRecord:
    scopes = frozenset(map(Scope, row.scopes.split()))
    rights = TokenRights(scopes, row.max_priority, row.max_pending)
    return TokenRecord(row.id, row.name, rights, row.created_at, row.revoked_at)
