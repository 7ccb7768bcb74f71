"""Batches that have images in common, in the dispatcher's tick: each waits for its turn, and is linked meanwhile."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from farm import ledger
from farm.database import Database
from farm.twins import note_linked
from farm.workers import known_fingerprint
from producer.dispatching.release import BatchShare
from producer.dispatching.twin_order import goes_before
from producer.questions.twin_batches import GroupedBatch, images_behind, in_groups, jobs_of

#: looked at for one batch in one tick
_IMAGES_AT_ONCE: Final = 5_000
#: in one transaction, whose locks others wait for
_LINKED_AT_ONCE: Final = 500
#: Images are numbered before they are committed: one may come to sight after so many that are younger.
_OUT_OF_ORDER: Final = 2_000

_InTime = Mapping[BatchShare, datetime | None]


@dataclass(frozen=True)
class Twins:
    """The groups, as one tick found them. ``linked``: batches whose jobs are linked to all that has come to sight."""

    database: Database
    groups: Mapping[int, Collection[GroupedBatch]]
    linked: Mapping[int, GroupedBatch]

    def on_turn(self, in_time: _InTime) -> _InTime:
        """Without the batches that wait for another. ``in_time``: those of which a pack may begin now."""
        if not self.groups:
            return in_time
        ids = {share.id for share in in_time}
        return {share: until for share, until in in_time.items() if self._may_go(share, ids)}

    def _may_go(self, share: BatchShare, in_time: Collection[int]) -> bool:
        if share.twin_group is None:
            return True
        group, one = self.groups.get(share.twin_group, ()), self.linked.get(share.id)
        first = goes_before(share.id, [other.twin(in_time=other.batch.id in in_time) for other in group])
        if one is None or first is not None:
            return False
        begins = not any(other.is_under_way for other in group)
        return not begins or _linked(self.database, one, _OUT_OF_ORDER) is not None


def look_at_twins(database: Database, shares: Collection[BatchShare]) -> Twins:
    """Links what waits of each group to what the others have rendered since the last look, a piece for each batch.

    Asks nothing where no batch has a twin.
    """
    waiting = {share.id: share.twin_group for share in shares if share.twin_group is not None}
    groups = defaultdict[int, list[GroupedBatch]](list)
    # Before their images are looked at: what is no longer under way by then has been recorded.
    for one in in_groups(database, set(waiting.values())) if waiting else ():
        groups[one.group].append(one)
    ours = (one for members in groups.values() for one in members if one.batch.id in waiting)
    linked = filter(None, (_linked(database, one) for one in ours))
    return Twins(database, groups, {one.batch.id: one for one in linked})


def _linked(database: Database, one: GroupedBatch, behind: int = 0) -> GroupedBatch | None:
    """pending → done, of the batch's jobs whose image was recorded since it was submitted: those before were asked for
    then. Such an image needs no question to the store: bytes come first, the row second. None where more is left.

    ``behind``: so many of the images that were looked at are looked at again.
    """
    page = images_behind(database, max(one.linked_to - behind, 0), _IMAGES_AT_ONCE)
    fingerprint = known_fingerprint(database, one.batch.pair) if page else None
    if fingerprint is None:  # it is rendered anew
        return one
    new = [row for row in page if row.pair_fingerprint == fingerprint and row.created_at >= one.batch.created_at]
    images = {row.spec_digest: row.id for row in new}
    digests = list(images)
    for lot in (digests[n : n + _LINKED_AT_ONCE] for n in range(0, len(digests), _LINKED_AT_ONCE)):
        if found := jobs_of(database, one.batch.id, {digest: images[digest] for digest in lot}):
            ledger.link_jobs(database, one.batch.id, found)
    if page[-1].id > one.linked_to:
        note_linked(database, one.batch.id, page[-1].id)
    return replace(one, linked_to=page[-1].id) if len(page) < _IMAGES_AT_ONCE else None
