"""What it costs to submit a large manifest, beside the simple way: a committed ORM row and a `.delay()` for each job.

Ours is the real `nightshift submit`, from its start to its end: the interpreter, reading, validation, seeds, digests,
repeats, and a durable row for each job. The simple way takes each line as it is, checks nothing, and works on fewer
rows; both are rates of the same run, on the same kind of ledger with the same pragmas. What was submitted is looked at
afterwards: the number of jobs, and a sample of them made anew from their lines.

Bias: made-up rows with prompt, category and, in every other one, a seed, so all are of one kind; rows of more than a
thousand kinds, or each with a negative prompt of its own, are read at a third of the rate. CPU is that of the producer
alone: SQLite works in it, the servers (PostgreSQL; Redis for the simple way) do not. `taskset -c 0` puts all of them on
one core.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from celery import Celery
from sqlalchemy import select
from sqlalchemy.orm import Session

from benchmarks.record import append
from farm import batches
from farm.database import Database
from farm.schema import upgrade
from producer.questions.queries import batch_summary
from schemas.digest import sha256_hex
from schemas.spec import JobSpec
from schemas.tables import Job
from tests.servers import PostgresServer, RedisServer, temporary_folder

_PAIR = "sdxl"
_SAMPLE = 200


def main() -> None:
    options = _options()
    with temporary_folder() as folder, _new_ledgers(options.ledger, folder) as (ours_url, simple_url):
        manifest = folder / "prompts.jsonl"
        _write_manifest(manifest, options.rows)
        ours = _nightshift(folder, manifest, ours_url)
        _check(ours_url, manifest, options.rows)
        simple = _simple_way(folder, manifest, simple_url, options.simple_rows)
    times = ours["rows_per_second"] / simple["rows_per_second"]
    cpu_times = ours["rows_per_cpu_second"] / simple["rows_per_cpu_second"]
    print(f"{'':24} {'rows':>9} {'rows/s':>8} {'rows/CPU s':>10} {'peak MB':>8}")
    for name, found in (("nightshift submit", ours), ("ORM row and .delay()", simple)):
        rates = f"{found['rows_per_second']:>8,.0f} {found['rows_per_cpu_second']:>10,.0f}"
        print(f"{name:24} {found['rows']:>9,.0f} {rates} {found['peak_mb']:>8.0f}")
    print(f"{'times faster':24} {'':9} {times:>8.1f} {cpu_times:>10.1f}")
    figures = {"ledger": options.ledger, "nightshift": ours, "simple": simple, "times": round(times, 2)}
    append("submit", options.record, figures)
    sys.exit(0 if times >= options.goal else 1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--simple-rows", type=int, default=2_000, help="jobs that the simple way submits")
    parser.add_argument("--ledger", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--goal", type=float, default=10.0, help="how many times faster it should be")
    parser.add_argument("--record", default="benchmarks.jsonl")
    return parser.parse_args()


@contextmanager
def _new_ledgers(kind: str, folder: Path) -> Iterator[list[str]]:
    """Two URLs, each of a ledger that has its tables."""
    with ExitStack() as servers:
        if kind == "postgresql":
            server = PostgresServer(folder)
            server.start()
            servers.callback(server.stop)
            urls = [servers.enter_context(server.new_database()) for _ in range(2)]
        else:
            urls = [f"sqlite:///{folder}/{name}.sqlite3" for name in ("ours", "simple")]
        for url in urls:
            with closing(Database(url)) as database:
                upgrade(database)
        yield urls


def _write_manifest(path: Path, num_rows: int) -> None:
    prompts = Path(__file__).with_name("prompts.txt").read_text(encoding="utf-8").splitlines()
    words = " ".join(prompts).split()
    chance = random.Random(1)
    with open(path, "w", encoding="utf-8") as stream:
        for number in range(num_rows):
            row: dict[str, object] = {
                "prompt": f"{chance.choice(prompts)}, {' '.join(chance.choices(words, k=6))}",
                "Category": chance.choice(["Animals", "People", "Food"]),
            }
            if number % 2:
                row["seed"] = chance.getrandbits(64)
            stream.write(json.dumps(row) + "\n")


def _nightshift(folder: Path, manifest: Path, database_url: str) -> dict[str, float]:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("NIGHTSHIFT_")},
        "NIGHTSHIFT_HOME": str(folder / "home"),
        "NIGHTSHIFT_DATABASE_URL": database_url,
    }
    command = [sys.executable, "-m", "nightshift", "submit", str(manifest), "--pair", _PAIR]
    started = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    assert status == 0, f"nightshift submit ended with {status}"
    # ru_maxrss counts what this process held when it forked, too: far less than the command comes to hold.
    return _rates(_num_lines(manifest), seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def _check(database_url: str, manifest: Path, num_rows: int) -> None:
    """Every row is a job, and a sample of them are what the lines say, made here in the plain way."""
    every = max(num_rows // _SAMPLE, 1)
    with closing(Database(database_url)) as database, open(manifest, encoding="utf-8") as lines:
        assert batch_summary(database, 1).num_pending == num_rows
        for number, line in islice(enumerate(lines, 1), 0, None, every):
            _check_job(database, number, json.loads(line))


def _check_job(database: Database, number: int, content: dict[str, Any]) -> None:
    with database.begin(read_only=True) as tx:
        job = tx.execute(select(Job).where(Job.batch_id == 1, Job.number == number)).one()
    seed = content["seed"] if "seed" in content else JobSpec.from_json(job.spec).seed
    spec = JobSpec.parse({"prompt": content["prompt"], "seed": seed})
    assert (job.spec, job.spec_digest, job.pack_key) == (spec.canonical, spec.digest, spec.pack_key)
    assert job.meta == {"Category": content["Category"]}


def _simple_way(folder: Path, manifest: Path, database_url: str, num_rows: int) -> dict[str, float]:
    """Against a Redis of its own."""
    redis = RedisServer(folder)
    redis.start()
    app = Celery("simple", broker=redis.url)
    app.conf.task_ignore_result = True

    @app.task
    def render(job_id: int) -> None:
        raise NotImplementedError("nobody takes these messages")

    with closing(Database(database_url)) as database, open(manifest, encoding="utf-8") as lines:
        batch_id = batches.create_batch(database, "simple", _PAIR, 5)
        began, began_cpu = time.perf_counter(), time.process_time()
        # Without expire_on_commit each job would be read again for its id.
        with Session(database.engine, expire_on_commit=False) as session:
            for number, line in zip(range(1, num_rows + 1), lines, strict=False):
                job = _job(batch_id, number, line)
                session.add(job)
                session.commit()
                render.delay(job.id)
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
        assert number == num_rows
    app.close()
    redis.stop()
    return _rates(num_rows, seconds, cpu_seconds, _peak_megabytes())


def _job(batch_id: int, number: int, line: str) -> Job:
    content = json.loads(line)
    return Job(
        batch_id=batch_id, number=number, spec_digest=sha256_hex(line), repeat=0, spec=line, state="pending",
        pack_key="1024x1024/40", meta={"Category": content["Category"]},
    )  # fmt: skip


def _rates(rows: int, seconds: float, cpu_seconds: float, peak_mb: float) -> dict[str, float]:
    return {
        "rows": rows,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),
        "rows_per_second": round(rows / seconds, 1),
        "rows_per_cpu_second": round(rows / cpu_seconds, 1),
        "peak_mb": round(peak_mb),
    }


def _num_lines(path: Path) -> int:
    with open(path, "rb") as stream:
        return sum(1 for _ in stream)


def _peak_megabytes() -> float:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    main()
