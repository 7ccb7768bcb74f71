"""What finished runs show together: figures for docs/reliability.md."""

import json
from pathlib import Path
from typing import Any

_CONFIDENCE = 0.95


def summary(finished: Path) -> str:
    """Of the last run of each name."""
    last = {line["name"]: line for line in map(json.loads, finished.read_text().splitlines())}
    kinds = {"one fault": "single", "mixtures": "mixture"}
    rows = [
        _row(kind, [line for name, line in last.items() if name.startswith(start)]) for kind, start in kinds.items()
    ]
    return "\n".join([*rows, _row("all", list(last.values()))])


def bound(num_clean: int) -> float:
    """With so many clean trials and none that was not: the chance of a bad one is below this, at 95 % confidence."""
    return 1.0 - (1.0 - _CONFIDENCE) ** (1 / num_clean) if num_clean else 1.0


def _row(kind: str, lines: list[dict[str, Any]]) -> str:
    broken = sum(bool(line["violations"]) for line in lines)
    jobs = sum(line["num_jobs"] for line in lines)
    text = (
        f"{kind}: {len(lines)} runs, {broken} of them broken; {sum(len(line['faults']) for line in lines)} faults,"
        f" {jobs} jobs, {sum(line['num_lost_packs'] for line in lines)} lost packs;"
        f" slowest recovery {max((line['slowest_recovery_seconds'] for line in lines), default=0)} s,"
        f" longest stall {max((line['longest_stall_seconds'] for line in lines), default=0)} s"
    )
    if broken or not jobs:
        return text
    return f"{text}; a run breaks a promise with a chance below {bound(len(lines)):.2%}, a job below {bound(jobs):.3%}"
