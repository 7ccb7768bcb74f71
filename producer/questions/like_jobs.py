"""Jobs of the same prompt in one batch, near each other as rows, seeds and sweeps of one row are. Changes no row."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from farm.database import Database, Transaction, question
from producer.questions.job_results import JobResult, job_result, jobs_with_images
from schemas.tables import Job

_NEAR: Final = 200
_MOST: Final = 24


def like_jobs(database: Database, job: JobResult) -> list[JobResult]:
    """At most 24 others of its prompt, the nearest in the manifest, in its order."""
    prompt = job.spec.prompt
    like = [other for other in _near(database, job.batch_id, job.number) if _prompt(other) == prompt]
    others = sorted((other for other in like if other.number != job.number), key=lambda o: abs(o.number - job.number))
    return sorted(others[:_MOST], key=lambda other: other.number)


def varied_fields(one: JobResult, other: JobResult) -> dict[str, tuple[str, str]]:
    """field → its two values, for the fields of the specs that differ; dotted as a manifest's columns are."""
    left, right = flat_fields(one), flat_fields(other)
    names = sorted(left.keys() | right.keys())
    return {name: (left.get(name, "–"), right.get(name, "–")) for name in names if left.get(name) != right.get(name)}


def flat_fields(job: JobResult) -> dict[str, str]:
    """The fields of the spec that have a value, as text, dotted as a manifest's columns are."""
    return dict(_flat(job.spec.model_dump(mode="json", exclude_none=True)))


@question
def _near(tx: Transaction, batch_id: int, number: int) -> list[JobResult]:
    stretch = (Job.batch_id == batch_id, Job.number >= number - _NEAR, Job.number <= number + _NEAR)
    return [job_result(row) for row in tx.execute(jobs_with_images().where(*stretch).order_by(Job.number))]


def _prompt(job: JobResult) -> str:
    return str(json.loads(job.spec_json)["prompt"])


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            is_text = not isinstance(value, list | dict)
            yield f"{prefix}{name}", str(value) if is_text else json.dumps(value, ensure_ascii=False)
