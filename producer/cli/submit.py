"""`nightshift submit`."""

import sys
from contextlib import closing
from dataclasses import asdict, replace

import typer

from farm.broker import open_broker
from farm.embedded_redis import is_running
from producer.cli.manifest_options import (
    AgainOption,
    FormatOption,
    LimitOption,
    ManifestArgument,
    MapOption,
    NameOption,
    SetOption,
    SkipOption,
    anew,
    batch_request,
    read_options,
    submit_manifest,
)
from producer.cli.session import JsonOption, PairOption, Session, open_session, print_json
from producer.cli.timing_options import DeadlineOption, NotBeforeOption, PriorityOption, WeightOption, WindowOption
from producer.counted_advice import CountedAdvice
from producer.dispatcher import Dispatcher
from producer.manifest_source import ManifestSource
from producer.submit import Submission
from schemas.errors import BrokerUnavailableError
from schemas.timing import Timing

app = typer.Typer()


@app.command(epilog="Example: nightshift submit prompts.tsv --pair sdxl --set num_inference_steps=30")
def submit(
    manifest: ManifestArgument,
    pair: PairOption = None,
    fields: SetOption = None,
    columns: MapOption = None,
    limit: LimitOption = None,
    manifest_format: FormatOption = None,
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
    source = ManifestSource.parse(manifest, manifest_format)
    with open_session() as session:
        options = read_options(session.settings, fields, columns, limit)
        request = batch_request(session.settings, source, pair, name, priority, skip_invalid)
        request = replace(request, weight=weight, timing=Timing.parse(window, not_before, deadline))
        request = anew(request) if again else request
        advised = CountedAdvice(session.settings.model_pair(pair))
        submission = submit_manifest(session.database, source, options, request, advised)
        if as_json:
            print_json({"batch_id": submission.batch_id, "num_jobs": submission.num_jobs,
                        "num_linked": submission.num_linked, "num_left_out": submission.num_left_out,
                        "invalid_file": submission.invalid_file,
                        "warnings": warnings_as_json(advised)})  # fmt: skip
        else:
            print(f"batch {submission.batch_id}: {submission.num_jobs} jobs accepted ({request.name}, {request.pair})")
        print_exceptions(submission)
        print_warnings(advised)
        _release(session, submission.batch_id)


def print_exceptions(submission: Submission) -> None:
    """Says on stderr how many jobs need not be rendered, how many bad rows were left out, and where they are listed."""
    if submission.num_linked:
        print(f"{submission.num_linked} images exist already (--again renders them anew)", file=sys.stderr)
    if submission.num_left_out:
        print(f"{submission.num_left_out} invalid rows left out; see {submission.invalid_file}", file=sys.stderr)


def print_warnings(advised: CountedAdvice) -> None:
    """Says on stderr what is unusual about the rows, each kind once."""
    for warned in advised.warnings:
        print(warned, file=sys.stderr)


def warnings_as_json(advised: CountedAdvice) -> list[dict[str, object]]:
    """The same for programs: code, num_rows, first_line and sentence of each kind."""
    return [asdict(warned) for warned in advised.warnings]


def _release(session: Session, batch_id: int) -> None:
    """One ordinary tick, so that nobody waits for a dispatcher."""
    if not session.settings.broker_url and not is_running(session.settings.home):
        print(f"no farm runs here yet: `nightshift up` renders batch {batch_id}", file=sys.stderr)
        return
    try:
        with closing(open_broker(session.settings)) as broker:
            dispatcher = Dispatcher(session.database, broker, session.settings)
            dispatcher.tick()
            dispatcher.close()
    except BrokerUnavailableError as error:
        raise BrokerUnavailableError(
            f"{error}; batch {batch_id} is safe in the ledger and renders once Redis and a dispatcher run:"
            " do not submit it again"
        ) from error
