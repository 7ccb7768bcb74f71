"""`nightshift submit`."""

import gc
import sys
from dataclasses import asdict

import typer

from producer.cli.answers import JsonOption, print_json, so_many
from producer.cli.expansion_options import (
    BaseSeedOption,
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
    ManifestArgument,
    MapOption,
    NameOption,
    SetOption,
    SkipOption,
    given_order,
)
from producer.cli.session import PairOption, Session, open_session
from producer.cli.timing_options import DeadlineOption, NotBeforeOption, PriorityOption, WeightOption, WindowOption
from producer.dispatching.webhooks import webhook_target
from producer.manifests.counted_advice import CountedAdvice
from producer.questions.outlook import goes_first, outlook
from producer.questions.queries import batch_summary
from producer.questions.twin_batches import twins_first
from producer.submitting.first_tick import first_tick
from producer.submitting.orders import batch_request, read_options, source_of, submit_manifest
from producer.submitting.submit import Submission
from schemas.printable import printable
from schemas.submit_order import MAX_JOBS

app = typer.Typer()


@app.command(epilog="Example: nightshift submit prompts.tsv --pair sdxl --set num_inference_steps=30")
def submit(
    manifest: ManifestArgument,
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
    base_seed: BaseSeedOption = None,
    max_jobs: MaxJobsOption = MAX_JOBS,
    name: NameOption = None,
    priority: PriorityOption = 5,
    weight: WeightOption = 1.0,
    window: WindowOption = None,
    not_before: NotBeforeOption = None,
    deadline: DeadlineOption = None,
    again: AgainOption = False,
    skip_invalid: SkipOption = False,
    as_json: JsonOption = False,
) -> None:
    """Put a manifest's jobs into the ledger. Workers that run start on them at once; nothing is rendered here."""
    with open_session() as session:
        webhook_target(session.settings)  # refused here, and not when the batch is accepted
        order = given_order(
            manifest, fields, columns, pair=pair, limit=limit, manifest_format=manifest_format,
            name=name, priority=priority, weight=weight,
            window=window, not_before=not_before, deadline=deadline, again=again, skip_invalid=skip_invalid,
            templates=templates, wildcards=wildcards, sweep=sweep, zipped=zipped, count=count, base_seed=base_seed,
            max_jobs=max_jobs,
        )  # fmt: skip
        options, request = read_options(session.settings, order), batch_request(session.settings, order)
        advised = CountedAdvice(session.settings.model_pair(pair))
        gc.freeze()  # what is imported stays: the collector need not look through it every few thousand rows
        with answered_interrupts():
            submission = submit_manifest(session.database, source_of(order), options, request, advised)
        first = twin_before(session, submission.batch_id)
        if as_json:
            print_json({"batch_id": submission.batch_id, "num_jobs": submission.num_jobs,
                        "num_linked": submission.num_linked, "num_left_out": submission.num_left_out,
                        "waits_for": first, "invalid_file": submission.invalid_file,
                        "warnings": warnings_as_json(advised)})  # fmt: skip
        else:
            jobs, name = so_many(submission.num_jobs, "job"), printable(request.name)
            print(f"batch {submission.batch_id}: {jobs} accepted ({name}, {request.pair})")
        print_exceptions(submission, first)
        print_warnings(advised)
        if request.timing.deadline is not None:
            _print_lateness(session, submission.batch_id)
        release(session, submission.batch_id)


def twin_before(session: Session, batch_id: int) -> int | None:
    """The batch that has the same images and goes before this one."""
    batch = batch_summary(session.database, batch_id)
    return twins_first(session.database, [batch], session.settings.window).get(batch_id)


def print_exceptions(submission: Submission, first: int | None) -> None:
    """Says on stderr how many jobs need not be rendered, and which batch renders others; how many bad rows were left
    out, and where they are listed."""
    if submission.num_linked:
        exist, them = ("image exists", "it") if submission.num_linked == 1 else ("images exist", "them")
        print(f"{submission.num_linked:,} {exist} already (--again renders {them} anew)", file=sys.stderr)
    if first is not None:
        print(f"{goes_first(first)}; each of them is rendered once", file=sys.stderr)
    if submission.num_left_out:
        print(
            f"{so_many(submission.num_left_out, 'invalid row')} left out; see {submission.invalid_file}",
            file=sys.stderr,
        )


def print_warnings(advised: CountedAdvice) -> None:
    """Says on stderr what is unusual about the rows, each kind once."""
    for warned in advised.warnings:
        print(warned, file=sys.stderr)


def _print_lateness(session: Session, batch_id: int) -> None:
    """Says on stderr that it cannot keep its deadline: the batch is rendered all the same."""
    batch = batch_summary(session.database, batch_id)
    if late := outlook(session.database, batch, session.settings).late:
        print(f"warning: batch {batch_id} {late if late.startswith('will') else f'is {late}'}", file=sys.stderr)


def warnings_as_json(advised: CountedAdvice) -> list[dict[str, object]]:
    """The same for programs: code, num_rows, first_line and sentence of each kind."""
    return [asdict(warned) for warned in advised.warnings]


def release(session: Session, batch_id: int) -> None:
    """One ordinary tick, so that nobody waits for a dispatcher."""
    if waits := first_tick(session.database, session.settings, batch_id):
        print(waits, file=sys.stderr)
