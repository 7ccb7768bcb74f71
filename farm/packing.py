"""Which pending jobs share a pack: pure policy.

Jobs of one key, so that they share forward passes. Where a key has too few for a pack, those of several keys of one
shape are put together: each key's stay whole, and a device is not asked for a hundred packs of one job.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from schemas.pack_key import shape_of


class PendingJob(Protocol):
    """A job as the release sees it; a row of the ledger is one."""

    @property
    def id(self) -> int: ...
    @property
    def pack_key(self) -> str: ...
    @property
    def isolated(self) -> bool: ...


@dataclass
class PackOfJobs:
    """The jobs of a pack to be, oldest first. An isolated job shares its pack with nobody. ``pack_key``: of the first
    of them; all have its shape."""

    pack_key: str
    is_isolated: bool
    ids: list[int] = field(default_factory=list)

    def takes_more(self, pack_size: int) -> bool:
        return not self.is_isolated and len(self.ids) < pack_size


def packs_of(jobs: Iterable[PendingJob], pack_size: int) -> list[PackOfJobs]:
    """The packs of these jobs, in the order of their first jobs; each has one pack key."""
    made: list[PackOfJobs] = []
    open_packs: dict[str, PackOfJobs] = {}
    for job in jobs:
        pack = None if job.isolated else open_packs.get(job.pack_key)
        if pack is None:
            pack = PackOfJobs(job.pack_key, job.isolated)
            made.append(pack)
            if not job.isolated:
                open_packs[job.pack_key] = pack
        pack.ids.append(job.id)
        if len(pack.ids) == pack_size:
            open_packs.pop(job.pack_key, None)
    return made


def joined(packs: Iterable[PackOfJobs], pack_size: int) -> list[PackOfJobs]:
    """The same jobs, in the same order of packs; of those that are not full, neighbours of one shape are one pack, if
    that holds both."""
    made: list[PackOfJobs] = []
    open_packs: dict[str, PackOfJobs] = {}
    for pack in packs:
        if not pack.takes_more(pack_size):
            made.append(pack)
            continue
        shape = shape_of(pack.pack_key)
        before = open_packs.get(shape)
        if before is not None and len(before.ids) + len(pack.ids) <= pack_size:
            before.ids += pack.ids
            continue
        made.append(PackOfJobs(pack.pack_key, pack.is_isolated, [*pack.ids]))
        if before is None or len(pack.ids) < len(before.ids):
            open_packs[shape] = made[-1]
    return made
