"""When a device is to blame for the deaths of its processes, and when a job is. Pure policy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_MAX_DEATHS: Final = 3


@dataclass(frozen=True)
class Death:
    """A process that its device ended: lost, or hung."""

    #: those of the pack on the device; empty where it rendered nothing
    job_ids: frozenset[int]
    #: it was rendering one job, which had killed a worker alone before
    suspects_job: bool = False
    #: it had recorded an image before it died
    had_rendered: bool = False


def is_unfit(deaths: Sequence[Death]) -> bool:
    """Whether a device with these deaths in a row, the oldest first, is to blame: three packs that share no job, and no
    image in between.

    A job that kills its workers is in every pack that it kills, first with its neighbours, then alone; so packs that
    share a job count once, and once it has killed a worker alone, not at all. One such job can never take a device out
    of service, however often it comes back. A device that kills whatever it gets is out after three packs, also when
    these are the single jobs of one pack that it killed before.
    """
    distinct: list[frozenset[int]] = []
    for death in reversed(deaths):
        is_new = all(death.job_ids.isdisjoint(others) for others in distinct)
        if death.job_ids and is_new and not death.suspects_job:
            distinct.append(death.job_ids)
        if death.had_rendered:
            break
    return len(distinct) >= _MAX_DEATHS
