"""In which state a job is, for questions. Its row says ``queued`` from its release to its end, for a claim writes the
pack's row and none of its jobs'; one whose pack runs is ``running``. Tables: jobs, packs.
"""

from collections.abc import Collection
from typing import Any, Final

from sqlalchemy import ColumnElement, String, and_, case, exists, literal_column, or_
from sqlalchemy.orm import aliased

from schemas.states import JobState, PackState
from schemas.tables import Job, Pack

_ITS_PACK: Final = aliased(Pack)
_IS_CLAIMED: Final = exists().where(_ITS_PACK.id == Job.pack_id, _ITS_PACK.state == PackState.RUNNING).correlate(Job)
_RUNS: Final = and_(Job.state == JobState.QUEUED, _IS_CLAIMED)
_WAITS: Final = and_(Job.state == JobState.QUEUED, ~_IS_CLAIMED)

#: of a row of ``jobs``, in a question
STATE: Final[ColumnElement[Any]] = case((_RUNS, literal_column("'running'", String)), else_=Job.state)


def written(state: JobState) -> JobState:
    """What the rows of jobs in this state say."""
    return JobState.QUEUED if state == JobState.RUNNING else state


def is_in(states: Collection[JobState]) -> ColumnElement[bool]:
    """Whether a row of ``jobs`` is in one of these states, in a question."""
    wanted = set(states)
    if len(wanted & {JobState.QUEUED, JobState.RUNNING}) != 1:  # their packs need not be asked
        return Job.state.in_(sorted({written(state) for state in wanted}))
    in_hand = _RUNS if JobState.RUNNING in wanted else _WAITS
    others = wanted - {JobState.QUEUED, JobState.RUNNING}
    return or_(in_hand, Job.state.in_(sorted(others))) if others else in_hand
