"""How much of what the farm has, in one look at the ledger: small numbers, however many jobs there are."""

from collections import Counter, defaultdict
from dataclasses import dataclass

from sqlalchemy import case, func, select

from farm.database import Transaction, question
from farm.workers import is_live
from schemas.states import BatchState, JobState, PackState
from schemas.tables import Batch, Pack, Worker
from schemas.windows import open_time, windows_of


@dataclass(frozen=True)
class FarmFigures:
    """``jobs``: (state, priority of the batch) → number; ``packs``, ``workers``: (pair, state) → number.

    oldest_pending_seconds: priority → for how long one of the batches with pending jobs has been allowed to run, at the
    most: without the hours of closed windows.
    """

    jobs: dict[tuple[str, int], int]
    batches: dict[str, int]
    packs: dict[tuple[str, str], int]
    workers: dict[tuple[str, str], int]
    oldest_pending_seconds: dict[int, float]


@question
def farm_figures(tx: Transaction, worker_seconds: float, farm_window: str) -> FarmFigures:
    """``worker_seconds``: a worker that was not seen for so long does not count; ``farm_window``: empty for always."""
    oldest = _oldest_pending(tx, farm_window)
    return FarmFigures(_jobs(tx), _batches(tx), _packs(tx), _workers(tx, worker_seconds), oldest)


def _jobs(tx: Transaction) -> dict[tuple[str, int], int]:
    """From the batches' counters: a batch is a row, and a farm has few beside its jobs."""
    totals = [func.sum(getattr(Batch, f"num_{state}")).label(state) for state in JobState]
    rows = tx.execute(select(Batch.priority, *totals).group_by(Batch.priority))
    return {(state.value, row.priority): int(getattr(row, state)) for row in rows for state in JobState}


def _batches(tx: Transaction) -> dict[str, int]:
    rows = tx.execute(select(Batch.state, func.count().label("num")).group_by(Batch.state))
    return dict.fromkeys(map(str, BatchState), 0) | {row.state: row.num for row in rows}


def _packs(tx: Transaction) -> dict[tuple[str, str], int]:
    live = Pack.state.in_((PackState.QUEUED, PackState.RUNNING))
    counted = select(Pack.pair, Pack.state, func.count().label("num")).where(live).group_by(Pack.pair, Pack.state)
    found = Counter({(row.pair, row.state): row.num for row in tx.execute(counted)})
    return {(pair, state): found[pair, state] for pair, _ in found for state in ("queued", "running")}


def _workers(tx: Transaction, seconds: float) -> dict[tuple[str, str], int]:
    alive = select(Worker.pair, Worker.state, func.count().label("num")).where(is_live(tx, seconds))
    return {(row.pair, row.state): row.num for row in tx.execute(alive.group_by(Worker.pair, Worker.state))}


def _oldest_pending(tx: Transaction, farm_window: str) -> dict[int, float]:
    """A batch that is to begin later is not late before that. Of those with the same window, the first has the most
    hours behind it."""
    since = case((Batch.not_before > Batch.opened_at, Batch.not_before), else_=Batch.opened_at)
    waiting = (Batch.state == BatchState.OPEN, Batch.num_pending > 0, Batch.opened_at.is_not(None))
    first = func.min(since, type_=Batch.opened_at.type).label("since")
    rows = tx.execute(
        select(Batch.priority, Batch.window, first).where(*waiting).group_by(Batch.priority, Batch.window)
    )
    seconds = defaultdict[int, float](float)
    for row in rows:
        windows = windows_of(row.window, farm_window)
        seconds[row.priority] = max(seconds[row.priority], open_time(windows, row.since, tx.now).total_seconds())
    return seconds
