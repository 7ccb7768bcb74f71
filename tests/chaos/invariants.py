"""What must hold after a run, whatever went wrong in it: asked of the ledger by SQL, and of the files."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from tests.chaos.farm import Farm

#: Written down here once more, so that a mistake in schemas/states.py is no excuse. Of rows: no job's says ``running``.
_MOVES = {
    *(("pending", new) for new in ("queued", "canceled")),
    *(("queued", new) for new in ("done", "pending", "failed", "canceled")),
}
_ENDED = ("done", "failed", "canceled")
_DONE = """
    SELECT jobs.id, jobs.spec_digest, jobs.pack_id, results.pack_id, results.worker_id, packs.worker_id,
        images.uri, images.sha256, images.pixel_sha256, environments.content, workers.pair_fingerprint,
        jobs.spec
    FROM jobs JOIN results ON results.job_id = jobs.id JOIN packs ON packs.id = results.pack_id
    JOIN images ON images.id = results.image_id JOIN workers ON workers.id = results.worker_id
    JOIN environments ON environments.digest = results.environment_digest
    WHERE jobs.state = 'done'
"""
#: A pack that was lost or given back may have ended jobs before; not afterwards.
_AFTER_THE_LOSS = """
    SELECT job.row_id FROM chaos_moves job JOIN chaos_moves pack ON pack.kind = 'pack' AND pack.row_id = job.pack_id
    WHERE job.kind = 'job' AND job.new = 'done' AND pack.new IN ('expired', 'returned', 'canceled') AND job.id > pack.id
"""


@dataclass
class Expected:
    """What a run may and must have. ``poisoned``: prompts that must fail. ``may_fail``: prompts that may."""

    num_jobs: int
    poisoned: set[str] = field(default_factory=set)
    may_fail: set[str] = field(default_factory=set)


def violations(farm: Farm, expected: Expected) -> list[str]:
    """One sentence for each promise that was broken; none, if all is well."""
    return [
        *_every_job_ended(farm, expected),
        *_each_once(farm),
        *_counters(farm),
        *_packs(farm),
        *_failures(farm, expected),
        *_results(farm),
        *_files(farm),
        *_publishes(farm),
    ]


def _every_job_ended(farm: Farm, expected: Expected) -> Iterator[str]:
    accepted = farm.ask(
        "SELECT jobs.id, jobs.state, batches.state FROM jobs JOIN batches ON batches.id = jobs.batch_id"
        " WHERE batches.state <> 'staging'"
    )
    for job, state, batch_state in accepted:
        if state not in _ENDED or (state == "canceled") != (batch_state == "canceled"):
            yield f"job {job} is {state} in a batch that is {batch_state}"
    if len(accepted) < expected.num_jobs:
        yield f"{expected.num_jobs} jobs were accepted, and the ledger has {len(accepted)}"
    for (job,) in farm.ask(
        "SELECT jobs.id FROM jobs JOIN batches ON batches.id = jobs.batch_id"
        " WHERE batches.state = 'staging' AND jobs.state <> 'pending'"
    ):
        yield f"job {job} was never accepted, and was released"


def _each_once(farm: Farm) -> Iterator[str]:
    ends: Counter[str] = Counter()
    for job, old, new in farm.ask("SELECT row_id, old, new FROM chaos_moves WHERE kind = 'job' ORDER BY id"):
        if (old, new) not in _MOVES:
            yield f"job {job} went from {old} to {new}"
        ends[job] += new in _ENDED
    ended = {str(job) for (job,) in farm.ask(f"SELECT id FROM jobs WHERE state IN {_ENDED}")}
    for job in sorted(ended | {job for job in ends if ends[job]}):
        if ends[job] != 1:
            yield f"job {job} ended {ends[job]} times"
    for (pack,) in farm.ask("SELECT row_id FROM chaos_moves WHERE kind = 'pack' AND new = 'running'"
                            " GROUP BY row_id HAVING count(*) > 1"):  # fmt: skip
        yield f"pack {pack} was claimed more than once"


def _counters(farm: Farm) -> Iterator[str]:
    states = ("pending", "queued", "running", *_ENDED)
    columns = ", ".join(f"num_{state}" for state in states)
    counted = {(batch, state): num for batch, state, num in farm.ask(
        "SELECT batch_id, state, count(*) FROM jobs GROUP BY batch_id, state")}  # fmt: skip
    for batch, *counters in farm.ask(f"SELECT id, {columns} FROM batches"):
        found = [counted.get((batch, state), 0) for state in states]
        if found != counters:
            yield f"batch {batch} counts {dict(zip(states, counters, strict=True))}, and has {found}"


def _packs(farm: Farm) -> Iterator[str]:
    for pack, state, batch in farm.ask("SELECT id, state, batch_id FROM packs WHERE state IN ('queued', 'running')"):
        yield f"pack {pack} of batch {batch} is still {state}"


def _failures(farm: Farm, expected: Expected) -> Iterator[str]:
    failed = set()
    for job, state, spec, attempts, error in farm.ask("SELECT id, state, spec, attempts, error FROM jobs"):
        prompt = json.loads(spec)["prompt"]
        most = farm.rules.max_attempts - (state == "done")
        if attempts > most:
            yield f"job {job} is {state} after {attempts} attempts, at most {most}"
        if state == "failed":
            failed.add(prompt)
            if prompt not in expected.poisoned | expected.may_fail:
                yield f"job {job} failed after {attempts} attempts, and nothing was wrong with it: {error}"
    for prompt in sorted(expected.poisoned - failed):
        yield f"the job of {prompt!r} did not fail"


def _results(farm: Farm) -> Iterator[str]:
    done = Counter(farm.ask("SELECT state FROM jobs"))[("done",)]
    num_results = farm.ask("SELECT count(*) FROM results")[0][0]
    rows = [row for row in farm.ask(_DONE) if not json.loads(row.spec)["prompt"].startswith("poison")]
    if not done == num_results == len(rows):
        yield f"{done} jobs are done, with {num_results} result rows, {len(rows)} of them whole and of no poison"
    finished = set(farm.ask("SELECT row_id, pack_id FROM chaos_moves WHERE kind = 'job' AND new = 'done'"))
    reference = farm.shared.reference.pixels({row[1] for row in rows})
    too_late = {str(job) for (job,) in farm.ask(_AFTER_THE_LOSS)}
    for row in rows:
        job, digest, pack, result_pack, result_worker, pack_worker = row[:6]
        if pack != result_pack or result_worker != pack_worker:
            yield (f"job {job}: its pack is {pack}, its result's {result_pack} of worker {result_worker},"
                   f" and worker {pack_worker} held that")  # fmt: skip
        if (str(job), result_pack) not in finished or str(job) in too_late:
            yield f"job {job}: pack {result_pack} ended it, and was lost"
        is_known = json.loads(row.spec)["prompt"] not in farm.of_other_weights
        if is_known and row.pixel_sha256 != reference[digest]:
            yield f"job {job}: its pixels are not those of a run without faults"
        if not is_known and row.pixel_sha256 == reference[digest]:
            yield f"job {job}: its pixels are of other weights than its worker had"
        yield from _picture(farm, job, row[6:11])


def _picture(farm: Farm, job: int, columns: Iterable[Any]) -> Iterator[str]:
    uri, sha256, pixel_sha256, environment, fingerprint = columns
    content = environment if isinstance(environment, dict) else json.loads(environment)
    if content["pair_fingerprint"] != fingerprint:
        yield f"job {job}: its environment has other weights than its worker"
    path = farm.store.path_of(uri)
    if not path.exists():
        yield f"job {job} is done, and {path} does not exist"
        return
    if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        yield f"job {job}: {path} has another sha256 than its row"
        return
    with Image.open(path) as image:
        pixels = hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()
    if pixels != pixel_sha256:
        yield f"job {job}: {path} has other pixels than its row says"


def _files(farm: Farm) -> Iterator[str]:
    """A worker that dies leaves what it had in its hands: the jobs of its packs. Nobody else leaves any."""
    known = {farm.store.path_of(uri) for (uri,) in farm.ask("SELECT uri FROM images")}
    orphans = [path for path in farm.store.images() if path not in known]
    temporary = farm.store.temporary_files()
    deaths = farm.ask("SELECT count(*) FROM packs WHERE state = 'expired'")[0][0]
    if len(orphans) + len(temporary) > deaths * farm.rules.pack_size:
        yield f"{len(orphans)} files without a row and {len(temporary)} temporary ones after {deaths} lost packs"
    for path in farm.store.torn():
        yield f"{path} is under its final name, and not whole"


def _publishes(farm: Farm) -> Iterator[str]:
    """A pack is noted as published only where a publish of it came back without an error."""
    told = set()
    for role in ("dispatcher", "producer"):
        path = farm.points(role) / "fired" / "publishes.jsonl"
        for line in path.read_text().splitlines() if path.exists() else ():
            said = json.loads(line)
            told |= {*said["pack_ids"]} if said["published"] else set()
    for (pack,) in farm.ask("SELECT id FROM packs WHERE published_at IS NOT NULL"):
        if pack not in told:
            yield f"pack {pack} is noted as published, and every publish of it failed"
