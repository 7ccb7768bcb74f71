"""`nightshift schedule`: what is submitted every night."""

import sys
from dataclasses import asdict
from datetime import datetime
from threading import Event
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from farm import schedules as ledger_schedules
from farm.firings import fail_firing, fire_now
from farm.leases import ledger_time
from farm.schedules import NewSchedule
from producer.cli.answers import JsonOption, print_json, so_many
from producer.cli.expansion_options import (
    CountOption,
    MaxJobsOption,
    SweepOption,
    TemplatesOption,
    WildcardsOption,
    ZipOption,
)
from producer.cli.interruption import answered_interrupts
from producer.cli.manifest_options import (
    AgainOption,
    FormatOption,
    LimitOption,
    MapOption,
    NameOption,
    SetOption,
    SkipOption,
    given_order,
)
from producer.cli.session import PairOption, Session, open_session
from producer.cli.submit import print_exceptions, release, twin_before
from producer.cli.timing_options import PriorityOption, WeightOption, WindowOption
from producer.dispatching.firing import submit_firing
from producer.dispatching.schedule_check import checked_order
from producer.dispatching.schedule_queries import LastFiring, find_schedule, schedules
from producer.submitting.submit import Submission
from schemas.cron import CronLine
from schemas.errors import NightshiftError
from schemas.printable import printable
from schemas.schedule import Missed, Schedule
from schemas.states import BatchState, FiringState
from schemas.submit_order import MAX_JOBS
from schemas.wall_clock import wall_at, zone_named

app = typer.Typer()
schedule = typer.Typer(help="What is submitted again and again, by a cron line.", no_args_is_help=True)
app.add_typer(schedule, name="schedule")

_SHOWN_TIMES = 3
_MISSED_HELP = "What was missed while no dispatcher ran: fire the last of it once, or skip it."
_NOT_BEFORE_HELP = "Begin no sooner than at the first such time after the firing: 23:30, 'sat 08:00'."
_DEADLINE_HELP = "Say so when the batch will not be done by the first such time after the firing: 07:00."
_SEED_HELP = "The same seeds each time for rows that have none; else each firing has others."

ScheduleArgument = Annotated[str, typer.Argument(metavar="NAME", help="The schedule's name.")]
ManifestArgument = Annotated[
    str, typer.Argument(help="As `nightshift submit` takes it; {date} in its name is the firing's: lists/{date}.tsv.")
]
CronOption = Annotated[str, typer.Option("--cron", metavar="LINE", help="When: '0 22 * * 1-5', as in a crontab.")]
ZoneOption = Annotated[str, typer.Option("--tz", metavar="ZONE", help="On whose clock: Europe/Berlin, UTC.")]
MissedOption = Annotated[Missed, typer.Option("--missed", help=_MISSED_HELP)]
ReplaceOption = Annotated[bool, typer.Option("--replace", help="Put it in the place of one of this name.")]
SeedOption = Annotated[int | None, typer.Option("--base-seed", min=0, max=2**64 - 1, help=_SEED_HELP)]
ClockOption = Annotated[str | None, typer.Option("--not-before", metavar="TIME", help=_NOT_BEFORE_HELP)]
DeadlineOption = Annotated[str | None, typer.Option("--deadline", metavar="TIME", help=_DEADLINE_HELP)]


@schedule.command(
    epilog='Example: nightshift schedule add nightly tonight.tsv --cron "0 22 * * 1-5" --tz Europe/Berlin --pair sdxl'
)
def add(
    name: ScheduleArgument,
    manifest: ManifestArgument,
    cron: CronOption,
    tz: ZoneOption,
    missed: MissedOption = Missed.ONCE,
    replace: ReplaceOption = False,
    pair: PairOption = None,
    fields: SetOption = None,
    columns: MapOption = None,
    limit: LimitOption = None,
    manifest_format: FormatOption = None,
    templates: TemplatesOption = None,
    wildcards: WildcardsOption = None,
    sweep: SweepOption = None,
    zipped: ZipOption = False,
    count: CountOption = 1,
    base_seed: SeedOption = None,
    max_jobs: MaxJobsOption = MAX_JOBS,
    batch_name: NameOption = None,
    priority: PriorityOption = 5,
    weight: WeightOption = 1.0,
    window: WindowOption = None,
    not_before: ClockOption = None,
    deadline: DeadlineOption = None,
    again: AgainOption = False,
    skip_invalid: SkipOption = False,
    as_json: JsonOption = False,
) -> None:
    """Submit a manifest again and again, by a cron line. It fires while `nightshift up` or `dispatcher` runs."""
    line = CronLine.parse(cron, tz)
    order = given_order(
        manifest, fields, columns, pair=pair, limit=limit, manifest_format=manifest_format, name=batch_name,
        base_seed=base_seed, priority=priority, weight=weight, window=window, not_before=not_before, deadline=deadline,
        again=again, skip_invalid=skip_invalid, templates=templates, wildcards=wildcards, sweep=sweep, zipped=zipped,
        count=count, max_jobs=max_jobs,
    )  # fmt: skip
    with open_session() as session:
        times = line.next_times(ledger_time(session.database), _SHOWN_TIMES)
        checked = checked_order(session.settings, name, order, times[0], line.zone)
        new = NewSchedule(name, line.text, tz, checked.order.as_json(), missed)
        ledger_schedules.add_schedule(session.database, new, times[0], replace)
        if checked.unread:
            print(checked.unread, file=sys.stderr)
        _print_schedule(session, name, as_json, f"fires {_listed(line, times)}")


@schedule.command("list", epilog="Example: nightshift schedule list --json")
def list_all(as_json: JsonOption = False) -> None:
    """List the schedules: when each fires next, and what came of its last firing."""
    with open_session() as session:
        found = schedules(session.database)
    if as_json:
        print_json([_as_json(one, last) for one, last in found])
        return
    if not found:
        print("no schedules yet; `nightshift schedule add` makes one")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("schedule", "cron line", "next", "last firing"):
        table.add_column(heading, overflow="fold")  # a path is not cut off
    for one, last in found:
        coming = "paused" if one.paused else _local(one, one.next_due_at)
        texts = (one.name, f"{one.cron} {one.timezone}", coming, _came_of(one, last) if last else "none yet")
        table.add_row(*(escape(printable(text)) for text in texts))
    Console().print(table)


@schedule.command(epilog="Example: nightshift schedule pause nightly")
def pause(name: ScheduleArgument, as_json: JsonOption = False) -> None:
    """Fire no more until it is resumed. Batches that it made go on."""
    with open_session() as session:
        ledger_schedules.pause_schedule(session.database, find_schedule(session.database, name).id)
        _print_schedule(session, name, as_json, "is paused")


@schedule.command(epilog="Example: nightshift schedule resume nightly")
def resume(name: ScheduleArgument, as_json: JsonOption = False) -> None:
    """Fire again. What was missed while it was paused is not caught up."""
    with open_session() as session:
        found = find_schedule(session.database, name)
        next_due_at = found.line.next_after(ledger_time(session.database))
        ledger_schedules.resume_schedule(session.database, found.id, next_due_at)
        found = find_schedule(session.database, name)
        _print_schedule(session, name, as_json, f"fires {_local(found, found.next_due_at)} ({found.timezone})")


@schedule.command(epilog="Example: nightshift schedule run nightly")
def run(name: ScheduleArgument, as_json: JsonOption = False) -> None:
    """Fire now, beside the times of its cron line: submits its manifest from here, with this moment's date and seed."""
    with open_session() as session:
        submission = _fired(session, find_schedule(session.database, name))
        first = twin_before(session, submission.batch_id)
        if as_json:
            print_json({"schedule": name, "batch_id": submission.batch_id, "num_jobs": submission.num_jobs,
                        "num_linked": submission.num_linked, "num_left_out": submission.num_left_out,
                        "waits_for": first, "invalid_file": submission.invalid_file})  # fmt: skip
        else:
            jobs = so_many(submission.num_jobs, "job")
            print(f"batch {submission.batch_id}: {jobs} accepted (schedule {printable(name)})")
        print_exceptions(submission, first)
        release(session, submission.batch_id)


@schedule.command(epilog="Example: nightshift schedule remove nightly")
def remove(name: ScheduleArgument, as_json: JsonOption = False) -> None:
    """Forget a schedule. The batches that it made stay, and go on."""
    with open_session() as session:
        found = find_schedule(session.database, name)
        ledger_schedules.remove_schedule(session.database, found.id)
        if as_json:
            print_json({"name": found.name, "removed": True})
        else:
            print(f"schedule {printable(found.name)} is removed; its batches stay")


def _fired(session: Session, found: Schedule) -> Submission:
    """A firing of its own, submitted by this process. One that fails here is not tried again."""
    claimed = fire_now(session.database, found, session.settings.lease_seconds)
    try:
        with answered_interrupts():
            return submit_firing(session.database, session.settings, claimed, Event())
    except NightshiftError as error:
        fail_firing(session.database, claimed.fence, str(error))
        raise
    except KeyboardInterrupt:
        fail_firing(session.database, claimed.fence, "it was interrupted")
        raise


def _print_schedule(session: Session, name: str, as_json: bool, what: str) -> None:
    if as_json:
        print_json(next(_as_json(one, last) for one, last in schedules(session.database) if one.name == name))
    else:
        print(f"schedule {printable(name)} {what}")


def _as_json(one: Schedule, last: LastFiring | None) -> dict[str, Any]:
    return {
        **asdict(one),
        "created_at": one.created_at.isoformat(),
        "next_due_at": None if one.paused else one.next_due_at.isoformat(),
        "last_firing": last.as_json() if last else None,
    }


def _came_of(one: Schedule, last: LastFiring) -> str:
    """``Mon 2026-11-23 22:00: batch 7 (open)``, or why there is none."""
    state = "ended" if last.batch_ended and last.batch_state != BatchState.CANCELED else last.batch_state
    made = f"batch {last.batch_id} ({state})" if last.batch_id else "its batch is gone"
    what = {
        FiringState.DONE: made,
        FiringState.SKIPPED: "skipped: it was missed",
        FiringState.SUBMITTING: "being submitted",
        FiringState.FAILED: f"failed: {_first_line(last.error)}",
    }.get(FiringState(last.state), "waits for a dispatcher")
    if last.retry_at is not None and last.state == FiringState.DUE:
        what = f"tried again {_local(one, last.retry_at)}: {_first_line(last.error)}"
    return f"{_local(one, last.due_at)}: {what}"


def _first_line(error: str | None) -> str:
    return (error or "").partition("\n")[0]


def _listed(line: CronLine, times: list[datetime]) -> str:
    shown = [f"{wall_at(moment, line.zone):%a %Y-%m-%d %H:%M}" for moment in times]
    return f"{', '.join(shown)}, ... ({line.zone.key})"


def _local(one: Schedule, moment: datetime) -> str:
    """On the schedule's clock; on UTC's where this machine does not know it."""
    try:
        return f"{wall_at(moment, zone_named(one.timezone)):%a %Y-%m-%d %H:%M}"
    except ValueError:
        return f"{moment:%a %Y-%m-%d %H:%M} UTC"
