"""The ledger's tables of HTTP: who may ask `nightshift web`, what was handed in, and what the webhook is told."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from schemas.column_types import Utc
from schemas.tables import Table


class Token(Table):
    """Somebody's right to ask. The token itself is nowhere: whoever reads the ledger cannot use it."""

    __tablename__ = "tokens"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text, unique=True)
    #: of the token, in hexadecimal digits
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    #: of ``schemas.token.Scope``, with a space between them
    scopes: Mapped[str] = mapped_column(String(40))
    #: the highest that its batches may have
    max_priority: Mapped[int]
    #: jobs of its batches that have not ended, at the most; None: any number
    max_pending: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(Utc)
    revoked_at: Mapped[datetime | None] = mapped_column(Utc)


class SubmissionRow(Table):
    """How a batch came over HTTP. Made and removed with it, so that it never speaks of a batch that is not there."""

    __tablename__ = "submissions"

    batch_id: Mapped[int] = mapped_column(ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True)
    #: None: nobody's, from this machine itself
    token_id: Mapped[int | None] = mapped_column(ForeignKey("tokens.id"), index=True)
    #: whose key it is and the key, hashed: the same key of two tokens is two keys. None where no key was given
    key_sha256: Mapped[str | None] = mapped_column(String(64))
    #: of everything that was asked for under the key
    request_sha256: Mapped[str | None] = mapped_column(String(64))
    #: what was answered, written before the batch is opened
    answer: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))

    __table_args__ = (Index("uq_submissions_key_sha256", "key_sha256", unique=True),)


class WebhookDelivery(Table):
    """Something that the webhook is told of a batch, once (``farm/webhook_deliveries.py``)."""

    __tablename__ = "webhook_deliveries"

    batch_id: Mapped[int] = mapped_column(ForeignKey("batches.id"), primary_key=True)
    event: Mapped[str] = mapped_column(String(40), primary_key=True)
    #: the receiver tells a repetition by it
    event_id: Mapped[str] = mapped_column(String(32))
    #: awaited, due, sending, sent, failed, void
    state: Mapped[str] = mapped_column(String(10))
    #: as it was when it happened, JSON
    body: Mapped[str | None] = mapped_column(Text)
    attempts: Mapped[int] = mapped_column(default=0)
    #: when it is sent (again); of one in ``sending``, when its sender counts as dead
    next_at: Mapped[datetime | None] = mapped_column(Utc)

    __table_args__ = (Index("ix_webhook_deliveries_state", "state", "next_at"),)
