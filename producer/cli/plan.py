"""`nightshift plan`: what submitting a manifest would come to."""

from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import Any

import typer

from farm.leases import ledger_time
from farm.workers import known_fingerprint, live_workers
from producer.cli.answers import JsonOption, print_json
from producer.cli.expansion_options import (
    BaseSeedOption,
    CountOption,
    MaxJobsOption,
    SweepOption,
    TemplatesOption,
    WildcardsOption,
    ZipOption,
)
from producer.cli.manifest_options import (
    AgainOption,
    FormatOption,
    LimitOption,
    ManifestArgument,
    MapOption,
    SetOption,
    SkipOption,
    given_order,
)
from producer.cli.session import PairOption, Session, open_session
from producer.cli.submit import print_warnings, warnings_as_json
from producer.cli.timing_options import DeadlineOption, NotBeforeOption, WindowOption
from producer.manifests.counted_advice import CountedAdvice
from producer.manifests.inputs import Inputs
from producer.manifests.manifest import read_manifest
from producer.questions.measured_packs import LastPacks
from producer.questions.pace import Pace
from producer.submitting.disk_need import disk_need
from producer.submitting.linking import StoredImages
from producer.submitting.measurements import jobs_before, mean_file_bytes, recent_packs
from producer.submitting.orders import read_options, source_of
from producer.submitting.plan import Known, Plan, plan
from producer.submitting.plan_text import plan_lines
from producer.submitting.submit import no_valid_row, refusal
from producer.submitting.survey import Existing, Survey, survey
from schemas.errors import ManifestError
from schemas.submit_order import MAX_JOBS
from schemas.timing import Timing
from schemas.windows import windows_of

app = typer.Typer()


@app.command("plan", epilog="Example: nightshift plan prompts.tsv --pair sdxl --window '22:00-06:00 Europe/Berlin'")
def show_plan(
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
    window: WindowOption = None,
    not_before: NotBeforeOption = None,
    deadline: DeadlineOption = None,
    again: AgainOption = False,
    skip_invalid: SkipOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say what submitting a manifest would come to: jobs, packs, time, hours, disk. Enqueues and stores nothing."""
    timing = Timing.parse(window, not_before, deadline)
    with open_session() as session:
        name = session.settings.model_pair(pair).name
        order = given_order(
            manifest, fields, columns, pair=pair, limit=limit, manifest_format=manifest_format,
            templates=templates, wildcards=wildcards, sweep=sweep,
            zipped=zipped, count=count, base_seed=base_seed, max_jobs=max_jobs,
        )  # fmt: skip
        options = replace(read_options(session.settings, order), inputs=Inputs(session.settings, stores=False))
        advised = CountedAdvice(session.settings.model_pair(pair))
        fingerprint = known_fingerprint(session.database, name, session.settings.given_definition(name))
        with ExitStack() as stack:
            existing = None
            if fingerprint is not None and not again:
                stored = stack.enter_context(StoredImages(session.settings.images_url))
                existing = Existing(session.database, stored, fingerprint)
            found = survey(advised.passed(read_manifest(source_of(order), options)), existing)
        known = _known(session, name, timing)
        means = mean_file_bytes(session.database, fingerprint) if fingerprint else {}
        planned = plan(name, found, known, disk_need(found.to_render.items(), means, session.settings.images_url))
        if as_json:
            print_json({**_as_json(planned, found), "warnings": warnings_as_json(advised)})
        else:
            print("\n".join(plan_lines(planned, timing, known.windows, again)), flush=True)
        print_warnings(advised)
    _refuse(found, skip_invalid)


def _known(session: Session, pair: str, timing: Timing) -> Known:
    settings, lease_seconds = session.settings, session.settings.lease_seconds
    num_live = live_workers(session.database, lease_seconds).get(pair, 0)
    return Known(
        now=ledger_time(session.database),
        pack_size=settings.pack_size,
        pace=Pace.of(recent_packs(session.database, pair, lease_seconds), num_live),
        num_before=jobs_before(session.database, pair),
        windows=windows_of(timing.window, settings.window),
        timing=timing,
        last_packs=LastPacks(session.database).of(pair),
    )


def _refuse(found: Survey, skip_invalid: bool) -> None:
    """As `nightshift submit` would."""
    if found.num_bad and not skip_invalid:
        raise ManifestError(refusal(found.num_bad, found.first_bad))
    if found.num_bad and not found.num_valid:
        raise ManifestError(no_valid_row(found.num_bad, found.first_bad[0]))


def _as_json(planned: Plan, found: Survey) -> dict[str, Any]:
    hours = asdict(planned.hours)
    spare = hours.pop("spare")
    times = {name: at.isoformat() for name in ("begins", "ends") if (at := hours[name])}
    return {
        **asdict(planned),
        "num_to_render": planned.num_to_render,
        "num_packs": planned.num_packs,
        "hours": {**hours, **times, "spare_seconds": spare.total_seconds() if spare is not None else None},
        "disk": {**asdict(planned.disk), "fits": planned.disk.fits},
        "invalid": [str(row) for row in found.first_bad],
    }
