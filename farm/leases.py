"""Named leases (table ``leases``): a right that one process holds at a time, such as to act as the dispatcher."""

from datetime import datetime
from typing import Final

from sqlalchemy import delete, or_

from farm.database import Transaction, question, statement
from schemas.tables import Lease

DISPATCHER: Final = "dispatcher"


@statement
def hold_lease(tx: Transaction, name: str, holder: str, seconds: float) -> bool:
    """Takes or renews the lease. False while somebody else holds it."""
    row = {"name": name, "holder": holder, "expires_at": tx.from_now(seconds)}
    taken = (
        tx.insert(Lease)
        .values(row)
        .on_conflict_do_update(
            index_elements=[Lease.name], set_=row, where=or_(Lease.holder == holder, Lease.expires_at < tx.from_now())
        )
        .returning(Lease.name)
    )
    return tx.execute(taken).first() is not None


@question
def ledger_time(tx: Transaction) -> datetime:
    """What time it is by the ledger's clock, which decides when a lease ends."""
    return tx.now


@statement
def drop_lease(tx: Transaction, name: str, holder: str) -> None:
    """Lets the lease go, so that the next holder need not wait for its end."""
    tx.execute(delete(Lease).where(Lease.name == name, Lease.holder == holder))
