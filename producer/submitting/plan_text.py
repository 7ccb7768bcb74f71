"""A plan for people: a screen of 80 columns."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

from producer.questions.outlook import local_time
from producer.questions.progress import duration
from producer.submitting.disk_need import DiskNeed
from producer.submitting.plan import PackGroup, Plan
from schemas.schedulers import short_scheduler_name
from schemas.timing import Timing
from schemas.windows import Window

_SHOWN_GROUPS: Final = 8
_UNITS: Final = ("bytes", "kB", "MB", "GB", "TB", "PB")


def plan_lines(plan: Plan, timing: Timing, windows: Sequence[Window], again: bool) -> Iterator[str]:
    """One line for each thing that there is to say."""
    invalid = f", {plan.num_invalid:,} invalid" if plan.num_invalid else ""
    yield f"{'rows':10}{plan.num_valid:,} valid{invalid}, for pair {plan.pair}"
    yield f"{'rendered':10}{_existing(plan, again)}"
    yield f"{'to render':10}{_count(plan.num_to_render, 'job')} in {_count(plan.num_packs, 'pack')}"
    yield from (f"{'':4}{_group(group)}" for group in plan.groups[:_SHOWN_GROUPS])
    if len(plan.groups) > _SHOWN_GROUPS:
        yield f"{'':4}and {len(plan.groups) - _SHOWN_GROUPS:,} more kinds"
    if not plan.num_to_render:
        return
    yield f"{'time':10}{_time(plan)}"
    if plan.num_before:
        yield f"{'':10}not counted: {_count(plan.num_before, 'job')} of other batches of this pair"
    yield from (f"{word:10}{sentence}" for word, sentence in _hours(plan, timing, windows))
    yield f"{'disk':10}{_disk(plan.disk)}"


def _existing(plan: Plan, again: bool) -> str:
    if plan.num_existing is not None:
        return f"{plan.num_existing:,} exist already"
    if again:
        return "not looked for: all are rendered anew"
    return f"unknown for all {plan.num_valid:,}: no worker of the pair has said its weights yet"


def _group(group: PackGroup) -> str:
    size, steps, scheduler, *more = group.pack_key.split("/")
    kind = (
        f"{size.replace('x', '×')}, {steps} steps, {short_scheduler_name(scheduler)}{', own options' if more else ''}"
    )
    return f"{kind:44}{_count(group.num_jobs, 'job'):>12}{_count(group.num_packs, 'pack'):>14}"


def _time(plan: Plan) -> str:
    if plan.seconds is None:
        if not plan.pace.num_live:
            return f"unknown: no live worker serves pair {plan.pair}"
        return f"unknown: {_count(plan.pace.num_live, 'live worker')}, none of them measured yet"
    rate = plan.num_to_render / plan.seconds if plan.seconds else 0.0
    measured = "" if plan.pace.num_measured >= plan.pace.num_live else f", {plan.pace.num_measured} measured"
    workers = f"{_count(plan.pace.num_live, 'live worker')}{measured}"
    return f"about {duration(plan.seconds)}, {rate:.2g} images/s ({workers})"


def _hours(plan: Plan, timing: Timing, windows: Sequence[Window]) -> Iterator[tuple[str, str]]:
    hours = plan.hours
    if hours.begins is None:
        yield "begins", f"never: {hours.never}"
        return
    yield "begins", local_time(hours.begins, windows)
    if hours.outlasting_seconds is not None:
        yield "", f"a pack takes about {duration(hours.outlasting_seconds)}, longer than its hours: it ends after"
    if hours.ends is not None:
        yield "ends", f"about {local_time(hours.ends, windows)}{_window(hours.num_spans)}"
    elif plan.seconds is not None:
        yield "ends", "in more than a year"
    if timing.deadline is not None:
        yield "deadline", _deadline(timing.deadline, hours.spare, hours.ends, windows)


def _window(num_spans: int | None) -> str:
    if num_spans is None:
        return ""
    return ", inside its window" if num_spans == 1 else f", in the {_ordinal(num_spans)} opening of its window"


def _deadline(deadline: datetime, spare: timedelta | None, ends: datetime | None, windows: Sequence[Window]) -> str:
    when = local_time(deadline, windows)
    if spare is not None and ends is None:
        return f"{when}: missed, for nothing begins before it"
    if spare is None:
        return f"{when}: unknown whether it is kept" if ends is None else when
    word = "kept, with" if spare >= timedelta() else "missed by"
    return f"{when}: {word} {duration(abs(spare).total_seconds())}{' to spare' if spare >= timedelta() else ''}"


def _disk(disk: DiskNeed) -> str:
    if not disk.num_estimated:
        how = "as recorded"
    elif disk.num_estimated == disk.num_files:
        how = "an estimate"
    else:
        how = f"an estimate for {disk.num_estimated:,} files"
    free = "free space unknown" if disk.free_bytes is None else f"{size_text(disk.free_bytes)} free"
    return f"{size_text(disk.num_bytes)} ({how}), {free}{': too little' if disk.fits is False else ''}"


def size_text(num_bytes: float) -> str:
    """``12.9 GB``."""
    unit = 0
    while num_bytes >= 999.5 and unit < len(_UNITS) - 1:
        num_bytes, unit = num_bytes / 1_000, unit + 1
    return f"{num_bytes:.3g} {_UNITS[unit]}"


def _count(num: int, noun: str) -> str:
    return f"{num:,} {noun}{'' if num == 1 else 's'}"


def _ordinal(num: int) -> str:
    ending = "th" if num % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(num % 10, "th")
    return f"{num}{ending}"
