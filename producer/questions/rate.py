"""How many images a second are rendered lately. Nothing here changes a row."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Select, Subquery, func, select

from farm.database import Transaction, question
from schemas.column_types import Utc
from schemas.tables import Pack, Result

_SECONDS: Final = 600.0
#: ten minutes of sixty devices, twenty seconds of a thousand
_RESULTS: Final = 5_000


def recent_results(tx: Transaction) -> Subquery:
    """The results of the last ten minutes, whatever their batch; of a large farm the last thousands of them, so that a
    rate costs the same however many devices there are."""
    lately = select(Result.job_id, Result.attempt, Result.finished_at, Result.pack_id).where(
        Result.finished_at > tx.now - timedelta(seconds=_SECONDS)
    )
    return lately.order_by(Result.finished_at.desc()).limit(_RESULTS).subquery()


@question
def images_per_second(tx: Transaction, batch_id: int) -> float | None:
    """Of this batch lately (``rendered_per_second``); None where nothing of it was rendered then."""
    return rendered_per_second(tx, batch_id)


@question
def batch_rates(tx: Transaction) -> Mapping[int, float]:
    """batch → its ``rendered_per_second``, for those that have one: as dear as asking for one of them."""
    lately = recent_results(tx)
    rows = tx.execute(_rendered(lately).add_columns(Pack.batch_id).group_by(Pack.batch_id)).all()
    since = _looked_since(tx, lately) if rows else None
    rates = {row.batch_id: _per_second(row, since, tx.now) for row in rows}
    return {batch_id: rate for batch_id, rate in rates.items() if rate is not None}


def rendered_per_second(tx: Transaction, batch_id: int | None = None) -> float | None:
    """Of the batch, or of all; images that were linked to are not counted. None where there were none lately.

    From when the first of their packs began: from its images on, they would count for the time of one pack too few. To
    the last image, or longer, if the next should have come by now.
    """
    lately = recent_results(tx)
    rendered = _rendered(lately)
    # + 0: else a database might begin with all packs of the batch
    row = tx.execute(rendered if batch_id is None else rendered.where(Pack.batch_id + 0 == batch_id)).one()
    return _per_second(row, _looked_since(tx, lately), tx.now) if row.num else None


def _rendered(lately: Subquery) -> Select[*tuple[Any, ...]]:
    """What a rate is made of, in one row."""
    began = func.coalesce(Pack.rendering_at, Pack.claimed_at, Pack.released_at, type_=Utc)
    sums = (func.count().label("num"), func.count(func.distinct(Pack.id)).label("num_packs"),
            func.min(began).label("began"), func.max(lately.c.finished_at).label("last"))  # fmt: skip
    return select(*sums).join_from(lately, Pack, Pack.id == lately.c.pack_id).where(lately.c.attempt > 0)


def _looked_since(tx: Transaction, lately: Subquery) -> datetime | None:
    """When the first of the results was there, where there are others before it that are not looked at."""
    whole = tx.execute(select(func.count().label("num"), func.min(lately.c.finished_at).label("oldest"))).one()
    return whole.oldest if whole.num == _RESULTS else None


def _per_second(row: Any, since: datetime | None, now: datetime) -> float | None:
    first = max(row.began, since) if since is not None else row.began
    seconds = (max(row.last, now - (row.last - first) / row.num_packs) - first).total_seconds()
    return row.num / seconds if seconds > 0 else None
