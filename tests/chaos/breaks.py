"""Breaks one of the product's promises in this process: the suite must notice (``test_negative_controls``)."""

from contextlib import contextmanager
from typing import Any

from sqlalchemy import ColumnElement

import farm.image_store
from farm import ledger, packs
from schemas.tables import Job


def apply(name: str) -> None:
    """``fence``: finishing compares nothing, and no worker is told that it lost a pack. ``release``: no lost pack comes
    back. ``rename``: files grow in place."""
    match name:
        case "":
            return
        case "fence":
            ledger._fence = lambda *_: None
            ledger._left_in = lambda _, pack: {job.id for job in pack.jobs}
            ledger._jobs_of = _whoever_has_them
            packs.renew_leases = _told_to_go_on(packs.renew_leases)
        case "release":
            ledger.expire_leases = lambda *_, **__: 0
        case "rename":
            farm.image_store.writing_atomically = _in_place
        case _:
            raise AssertionError(f"nothing to break is called {name!r}")


def _whoever_has_them(_: Any, job_ids: Any) -> tuple[ColumnElement[bool], ...]:
    return (Job.id.in_(job_ids),)


def _told_to_go_on(renew: Any) -> Any:
    """Else whether its late finish is tried would depend on what the worker that goes on comes to first."""

    def renewed(database: Any, worker_id: str, pack_ids: Any, seconds: float) -> Any:
        renew(database, worker_id, pack_ids, seconds)
        return frozenset(pack_ids)

    return renewed


@contextmanager
def _in_place(path: Any) -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        yield stream
