"""What submitting a manifest would come to: packs, time, hours, disk. Pure policy; what it judges by is given."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile

from producer.dispatching.release import next_start, outlasting_seconds, work_of
from producer.questions.pace import MeasuredPack, Pace, longest_seconds
from producer.submitting.disk_need import DiskNeed
from producer.submitting.survey import RowKind, Survey
from schemas.timing import Timing
from schemas.windows import Window, finishing, open_spans


@dataclass(frozen=True)
class PackGroup:
    """Jobs to render that may share packs, and how many packs the dispatcher makes of them."""

    pack_key: str
    num_jobs: int
    num_packs: int

    @property
    def work(self) -> float:
        return work_of(self.pack_key, self.num_jobs)


@dataclass(frozen=True)
class Hours:
    """When a batch would be rendered.

    begins: when its first pack may; None where no time would ever do, and ``never`` says why.
    outlasting_seconds: what its longest pack takes, where its hours are shorter: that ends after them. Else None.
    ends: None where the time it takes is not known, or it would take more than a year.
    num_spans: how often its window must open for it; None where it has none, or ``ends`` is not known.
    spare: between its end and its deadline; negative where that is missed. Where its end is not known: between its
        beginning and its deadline, if that comes first.
    """

    begins: datetime | None
    ends: datetime | None = None
    num_spans: int | None = None
    spare: timedelta | None = None
    never: str | None = None
    outlasting_seconds: float | None = None


@dataclass(frozen=True)
class Plan:
    """``groups``: the largest first. ``seconds``: None where no live worker was measured. ``num_before``: jobs of other
    batches of the pair, which are not counted in it."""

    pair: str
    num_valid: int
    num_invalid: int
    num_existing: int | None
    groups: tuple[PackGroup, ...]
    pace: Pace
    seconds: float | None
    num_before: int
    hours: Hours
    disk: DiskNeed

    @property
    def num_to_render(self) -> int:
        return sum(group.num_jobs for group in self.groups)

    @property
    def num_packs(self) -> int:
        return sum(group.num_packs for group in self.groups)


@dataclass(frozen=True)
class Known:
    """What a plan is judged by. ``windows``: of the batch, then of the farm. ``last_packs``: of the pair, by which the
    dispatcher judges whether another ends in its hours."""

    now: datetime
    pack_size: int
    pace: Pace
    num_before: int
    windows: Sequence[Window]
    timing: Timing
    last_packs: Sequence[MeasuredPack] = ()


def plan(pair: str, found: Survey, known: Known, disk: DiskNeed) -> Plan:
    """Of the rows that were read."""
    groups = pack_groups(found.to_render, known.pack_size)
    work, num_packs = sum(group.work for group in groups), sum(group.num_packs for group in groups)
    seconds = known.pace.seconds(work, num_packs)
    return Plan(
        pair=pair,
        num_valid=found.num_valid,
        num_invalid=found.num_bad,
        num_existing=found.num_existing,
        groups=groups,
        pace=known.pace,
        seconds=seconds,
        num_before=known.num_before,
        hours=hours(known, seconds, _longest_pack_seconds(groups, known)),
        disk=disk,
    )


def pack_groups(to_render: Mapping[RowKind, int], pack_size: int) -> tuple[PackGroup, ...]:
    """As ``ledger.release_packs`` makes packs: of jobs of one shape, wherever in the batch, full but for the last.
    Where jobs of a shape share no forward pass (their guidance differs, say) more packs may have room left."""
    by_key = Counter[str]()
    for kind, num in to_render.items():
        by_key[kind.pack_key] += num
    return tuple(PackGroup(key, num, -(-num // pack_size)) for key, num in by_key.most_common())


def hours(known: Known, seconds: float | None, pack_seconds: float) -> Hours:
    """``seconds``: what all of it takes; None where nobody knows. ``pack_seconds``: what its longest pack takes."""
    begins_at = max(known.now, known.timing.not_before or known.now)
    begins = next_start(known.windows, begins_at, pack_seconds)
    if begins is None:
        return Hours(None, never="its window and the farm's are never open together")
    deadline, outlasting = known.timing.deadline, outlasting_seconds(known.windows, begins, pack_seconds)
    if seconds is None:
        spare = deadline - begins if deadline and deadline <= begins else None
        return Hours(begins, spare=spare, outlasting_seconds=outlasting)
    ends = finishing(known.windows, begins, timedelta(seconds=seconds))
    spare = deadline - ends if deadline and ends else None
    return Hours(begins, ends, _num_spans(known.windows, begins, ends), spare, outlasting_seconds=outlasting)


def _num_spans(windows: Sequence[Window], begins: datetime, ends: datetime | None) -> int | None:
    """How often the windows are open between the two."""
    if not windows or ends is None:
        return None
    return max(1, sum(1 for _ in takewhile(lambda span: span.opens < ends, open_spans(windows, begins))))


def _longest_pack_seconds(groups: Sequence[PackGroup], known: Known) -> float:
    work = (work_of(group.pack_key, min(group.num_jobs, known.pack_size)) for group in groups)
    return longest_seconds(known.last_packs, max(work, default=0.0))
