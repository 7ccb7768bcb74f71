"""`make chaos`: each fault under three seeds, then thirty mixtures. Prints each seed, and what was violated.

``python -m tests.chaos [--only TEXT] [--folder FOLDER]``. Finished runs are lines of ``FOLDER/finished.jsonl``, and are
not run again, so it may be cut short at any time. A run that broke a promise leaves its folder, and is run again.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from itertools import chain
from pathlib import Path

from tests.chaos.plans import mixtures, singles
from tests.chaos.run import Plan, Report, execute
from tests.chaos.services import Services, services
from tests.chaos.summary import summary
from tests.children import ForkServer
from tests.servers import temporary_folder


def main() -> int:
    """The exit code: 1 where any run broke a promise."""
    arguments = _arguments()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    finished = arguments.folder / "finished.jsonl"
    known = [json.loads(line) for line in finished.read_text().splitlines()] if finished.exists() else []
    clean = {line["name"] for line in known if not line["violations"]}
    plans = [(name, plan) for name, plan in chain(singles(), mixtures()) if arguments.only in name]
    todo = [(name, plan) for name, plan in plans if name not in clean]
    print(f"{len(plans)} runs, {len(plans) - len(todo)} of them done before", flush=True)
    num_broken = 0
    with temporary_folder() as folder, ForkServer(folder) as forks, services(forks, folder) as shared:
        for name, plan in todo:
            report = _run(name, plan, shared, arguments.folder)
            num_broken += bool(report.violations)
            with finished.open("a") as lines:
                lines.write(json.dumps({"name": name, **report.as_json()}) + "\n")
    print(summary(finished))
    return 1 if num_broken else 0


def _run(name: str, plan: Plan, shared: Services, folder: Path) -> Report:
    print(f"{name} ({plan.ledger}, {plan.rules.num_workers} workers) ", end="", flush=True)
    # a short name, for a Unix socket may lie in it; what is worth keeping is moved to where it can be found
    with tempfile.TemporaryDirectory(prefix="ns-chaos-", ignore_cleanup_errors=True) as place:
        report = execute(plan, shared, Path(place) / "run")
        if report.violations:
            kept = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{plan.ledger}-{plan.seed}"
            shutil.copytree(Path(place) / "run", kept, symlinks=True)
            print(f"BROKEN, see {kept}", *report.violations, sep="\n  ", flush=True)
        else:
            print(f"{report.num_jobs} jobs, {report.num_lost_packs} lost packs, {report.seconds} s", flush=True)
    return report


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.chaos")
    parser.add_argument("--only", default="", help="runs whose name has this text: 'mixture, seed 3', 'Redis'")
    parser.add_argument("--folder", type=Path, default=Path(".chaos"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
