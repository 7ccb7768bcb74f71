"""Which pending jobs share a pack: pure policy."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol


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
    """The jobs of a pack to be, oldest first. An isolated job shares its pack with nobody."""

    pack_key: str
    is_isolated: bool
    ids: list[int] = field(default_factory=list)


def packs_of(jobs: Iterable[PendingJob], num_packs: int, pack_size: int) -> list[PackOfJobs]:
    """The packs of these jobs, in the order of their first jobs, and no more than so many; each has one pack key."""
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
    return made[:num_packs]
