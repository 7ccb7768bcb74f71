"""Tokens: who may ask `nightshift web` for what."""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from schemas.errors import InputError

#: what every token begins with, so that people and scanners of secrets know one when they see it
PREFIX: Final = "nst_"
_RANDOM_BYTES: Final = 32
MAX_PRIORITY: Final = 9


class Scope(StrEnum):
    """What a token is for. None includes another."""

    READ = "read"  #: see batches, jobs, images and events
    SUBMIT = "submit"  #: put jobs into the ledger
    OPERATE = "operate"  #: cancel, pause, resume, retry, reprioritise


@dataclass(frozen=True)
class TokenRights:
    """``max_priority``: the highest that its batches may have. ``max_pending``: jobs of its batches that have not
    ended, at the most; None: any number."""

    scopes: frozenset[Scope]
    max_priority: int = MAX_PRIORITY
    max_pending: int | None = None


@dataclass(frozen=True)
class TokenRecord:
    """A token as the ledger knows it."""

    id: int
    name: str
    rights: TokenRights
    created_at: datetime
    revoked_at: datetime | None


def new_token() -> str:
    """256 random bits."""
    return PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


def token_sha256(token: str) -> str:
    """What the ledger keeps of it. One round of sha256 is right here: slow, salted hashes make it dear to guess what
    people think of, and nobody guesses 256 random bits; every request would pay for it."""
    return hashlib.sha256(token.encode()).hexdigest()


def parsed_scopes(texts: list[str]) -> frozenset[Scope]:
    """Raises InputError for a scope that is none, or for no scope at all."""
    known = ", ".join(Scope)
    if not texts:
        raise InputError(f"a token without a scope may do nothing; give --scope, once or more: {known}")
    try:
        return frozenset(map(Scope, texts))
    except ValueError:
        wrong = next(text for text in texts if text not in tuple(Scope))
        raise InputError(f'--scope "{wrong}": scopes are {known}') from None
