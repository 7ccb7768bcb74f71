"""How the ledger grows: rates, answers and sizes with so many jobs in it that are done, on a real PostgreSQL.

The done jobs, with their packs, images and results, are made in bulk by the server itself, a million of them to a
batch at the most. At 100,000, at 1,000,000 and so on, up to ``--jobs``, an open batch is submitted, released, claimed
and finished by the ledger's own functions, the questions of `nightshift status` and of a page are asked, and all of it
is printed at once, so that a run that is cut off has told the smaller sizes. Exits 1 where an answer takes more than
``--most-ms``, or where a job was not done once.

Bias: PostgreSQL runs without fsync, and vacuums when it is told to, before each measurement; the rows are alike: one
short prompt each, one environment.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.record import append
from benchmarks.simulated_devices import ENVIRONMENT, simulated_images
from benchmarks.simulated_farm import PACK_SIZE, cpu_seconds, simulated_device, simulated_job
from farm import batches, ledger, packs
from farm.database import Database
from farm.leases import ledger_time
from farm.schema import upgrade
from farm.workers import live_workers
from producer.dispatching import chores
from producer.dispatching.shares import releasable_batches
from producer.questions import queries
from producer.questions.batch_pages import batches_before
from producer.questions.batch_throughput import throughput
from producer.questions.job_pages import job_of, jobs_after
from producer.questions.job_results import job_results
from producer.questions.measured_packs import LastPacks
from producer.questions.night import night
from producer.questions.rate import batch_rates, images_per_second
from schemas.settings import Settings
from schemas.states import JobState
from tests.servers import PostgresServer, temporary_folder

_BATCH = 1_000_000
_SMALLEST = 100_000
_NEW = 8_000
_CHUNK = 2_000
_DEVICES = 100


@dataclass
class Ledger:
    """A PostgreSQL of so many jobs that were made done, and of new ones that went the whole way."""

    database: Database
    server: int
    settings: Settings
    worker_ids: list[str]
    num_jobs: int = 0
    num_new: int = 0


@dataclass
class Figures:
    """At one size. ``cpu_ms``: of the server, a job; ``asker_ms``: of this process; ``a_second``: jobs, by the clock;
    ``answers``: ms by the clock; ``sizes``: MB of each table and index."""

    num_jobs: int
    fill_seconds: float
    cpu_ms: dict[str, float] = field(default_factory=dict)
    asker_ms: dict[str, float] = field(default_factory=dict)
    a_second: dict[str, float] = field(default_factory=dict)
    answers: dict[str, float] = field(default_factory=dict)
    sizes: dict[str, float] = field(default_factory=dict)
    num_done: int = 0


def main() -> int:
    options = _options()
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        made = _ledger(stack, folder)
        wrong = [sentence for size in _sizes_up_to(options.jobs) for sentence in _measured(made, size, options)]
    print(*wrong, sep="\n", file=sys.stderr)
    return int(bool(wrong))


def _ledger(stack: ExitStack, folder: Path) -> Ledger:
    server = PostgresServer(folder)
    server.start()
    stack.callback(server.stop)
    database = stack.enter_context(closing(Database(stack.enter_context(server.new_database()))))
    upgrade(database)
    with database.begin(read_only=True) as tx:  # or it works, and is counted, while something else is measured
        tx.connection.exec_driver_sql("ALTER SYSTEM SET autovacuum = off")
        tx.connection.exec_driver_sql("SELECT pg_reload_conf()")
    worker_ids = [simulated_device(database, "sdxl").worker_id for _ in range(_DEVICES)]
    return Ledger(database, server.pid, Settings(home=folder), worker_ids)


def _sizes_up_to(num_jobs: int) -> Iterator[int]:
    size = _SMALLEST
    while size < num_jobs:
        yield size
        size *= 10
    yield num_jobs


def _measured(made: Ledger, num_jobs: int, options: argparse.Namespace) -> list[str]:
    """Fills the ledger up to so many jobs, and tells how it does with them. Returns what is wrong."""
    began = time.perf_counter()
    while made.num_jobs < num_jobs:
        _fill(made, min(_BATCH, num_jobs - made.num_jobs))
    with made.database.begin(read_only=True) as tx:
        tx.connection.exec_driver_sql("VACUUM ANALYZE")
    figures = Figures(num_jobs, round(time.perf_counter() - began, 1))
    _go_the_whole_way(made, figures)
    figures.answers = _answers(made)
    figures.sizes = _sizes(made.database)
    _tell(figures, made.num_jobs + made.num_new)
    append("scale", options.record, vars(figures))
    slow = [f"{name} took {took} ms, at most {options.most_ms:g}, with {num_jobs:,} jobs"
            for name, took in figures.answers.items() if took > options.most_ms]  # fmt: skip
    return [*slow, *([] if figures.num_done == _NEW else [f"{figures.num_done} of {_NEW} new jobs are done"])]


def _fill(made: Ledger, num_jobs: int) -> None:
    """A batch whose jobs are done, some days ago. A job's image has its number."""
    batch_id = batches.create_batch(made.database, f"batch from {made.num_jobs}", "sdxl", 5)
    values = {"batch": batch_id, "start": made.num_jobs, "num": num_jobs, "worker": made.worker_ids[0],
              "digest": ENVIRONMENT.digest, "environment": ENVIRONMENT.model_dump_json(),
              "spec": simulated_job(1).spec, "key": simulated_job(1).pack_key, "size": PACK_SIZE}  # fmt: skip
    with made.database.begin() as tx:
        # by their numbers: of a batch that is new the server knows nothing, and would read them in another order
        values["after"] = tx.connection.exec_driver_sql("SELECT coalesce(max(id), 0) FROM jobs").scalar_one()
        for statement in _FILL.split(";"):
            tx.connection.exec_driver_sql(statement, values)
    made.num_jobs += num_jobs


#: without looking up each foreign key, which takes longer than all the rest
_FILL = """
    SET LOCAL session_replication_role = replica;
    INSERT INTO environments VALUES (%(digest)s, %(environment)s) ON CONFLICT DO NOTHING;
    INSERT INTO packs (id, batch_id, pair, pack_key, state, num_jobs, released_at, claimed_at, rendering_at, ended_at,
                       worker_id)
    SELECT md5('pack' || n), %(batch)s, 'sdxl', %(key)s, 'finished', %(size)s, t, t, t, t + interval '8 s', %(worker)s
    FROM (SELECT n, now() - interval '9 days' + n * interval '0.1 s' AS t
          FROM generate_series(%(start)s / %(size)s, (%(start)s + %(num)s - 1) / %(size)s) AS n) AS one;
    INSERT INTO jobs (batch_id, number, spec_digest, repeat, spec, pack_key, meta, state, attempts, isolated, pack_id)
    SELECT %(batch)s, n - %(start)s + 1, encode(sha256(('spec' || n)::bytea), 'hex'), 0,
           replace(%(spec)s, 'picture 1', 'picture ' || n), %(key)s, '{"row": "x"}', 'done', 0, false,
           md5('pack' || n / %(size)s)
    FROM generate_series(%(start)s, %(start)s + %(num)s - 1) AS n;
    INSERT INTO images (id, uri, sha256, pixel_sha256, size_bytes, width, height, format, spec_digest,
                        pair_fingerprint, created_at)
    SELECT id, 'file:///images/' || md5('a' || id) || md5('b' || id) || '.png', md5('a' || id) || md5('b' || id),
           md5('c' || id) || md5('d' || id), 1500000, 1024, 1024, 'png', spec_digest, repeat('f', 64), now()
    FROM jobs WHERE id > %(after)s ORDER BY id;
    SELECT setval('images_id_seq', (SELECT max(id) FROM jobs));
    INSERT INTO results (job_id, image_id, environment_digest, provenance, worker_id, pack_id, attempt, render_seconds,
                         finish_seconds, finished_at)
    SELECT id, id, %(digest)s,
           '{"handoff": "sigmas", "forward_pass_size": 8, "base_steps": 32, "refiner_steps": 8, "prompt_chunks": 1}',
           %(worker)s, pack_id, 1, 1.0, 0.1, now() - interval '9 days' + id * interval '0.0125 s'
    FROM jobs WHERE id > %(after)s ORDER BY id;
    UPDATE batches SET num_done = %(num)s, state = 'open', opened_at = now() WHERE id = %(batch)s
"""


def _go_the_whole_way(made: Ledger, figures: Figures) -> None:
    """A new batch, step by step."""
    database = made.database
    batch_id = batches.create_batch(database, "new", "sdxl", 5)
    jobs = [simulated_job(number) for number in range(1, _NEW + 1)]
    chunks = [jobs[n : n + _CHUNK] for n in range(0, _NEW, _CHUNK)]

    def step(name: str, what: Callable[[], Any]) -> Any:
        spent, own, began = cpu_seconds({"server": made.server})["server"], time.process_time(), time.perf_counter()
        done = what()
        seconds, own = time.perf_counter() - began, time.process_time() - own
        spent = cpu_seconds({"server": made.server})["server"] - spent
        figures.cpu_ms[name], figures.asker_ms[name] = round(spent / _NEW * 1000, 4), round(own / _NEW * 1000, 4)
        figures.a_second[name] = round(_NEW / seconds)
        return done

    step("submit", lambda: [ledger.stage_jobs(database, batch_id, chunk) for chunk in chunks])
    batches.open_batch(database, batch_id)
    released = step("release", lambda: _released(database, batch_id))
    held = step("claim", lambda: _claimed(made, released))
    step("begin", lambda: [packs.begin_rendering(database, one.id, one.worker_id) for one in held])
    step("finish", lambda: [ledger.finish_jobs(database, one, ENVIRONMENT, simulated_images(one)) for one in held])
    figures.num_done = queries.batch_summary(database, batch_id).num_done
    made.num_new += _NEW


def _released(database: Database, batch_id: int) -> list[Any]:
    released = list[Any]()
    while packs_of_batch := ledger.release_packs(database, batch_id, 25, PACK_SIZE):
        released += packs_of_batch
    return released


def _claimed(made: Ledger, released: list[Any]) -> list[Any]:
    claims = [ledger.claim_pack(made.database, pack.id, made.worker_ids[n % _DEVICES], 600.0, "")
              for n, pack in enumerate(released)]  # fmt: skip
    return [pack for pack in claims if pack is not None]


def _answers(made: Ledger) -> dict[str, float]:
    """ms by the clock of each question, the fastest of five."""
    database = made.database
    newest, num_oldest = queries.batch_summaries(database, 1)[0].id, queries.batch_summary(database, 1).num_jobs
    asked: dict[str, Callable[[], object]] = {
        "status": lambda: night(database, made.settings, ledger_time(database)),
        "batches": lambda: queries.batch_summaries(database, 20),
        "page of batches": lambda: _asked_by_the_page_of_batches(made),
        "a batch": lambda: queries.batch_summary(database, newest),
        "its rate": lambda: images_per_second(database, newest),
        "the oldest's throughput": lambda: throughput(database, 1),
        "its failures": lambda: queries.failures(database, newest, 5),
        "a page of jobs": lambda: next(job_results(database, 1)),
        "its last page": lambda: jobs_after(database, 1, num_oldest - 100, {JobState.DONE}, 100),
        "its failed jobs": lambda: jobs_after(database, 1, 0, {JobState.FAILED}, 100),
        "one job": lambda: job_of(database, 1, num_oldest // 2),
        "samples": lambda: queries.sampled_results(database, 1, num_oldest, 24),
        "a tick's questions": lambda: _asked_by_a_tick(database),
    }
    return {name: round(min(_milliseconds(question) for _ in range(5)), 1) for name, question in asked.items()}


def _asked_by_the_page_of_batches(made: Ledger) -> None:
    batches_before(made.database, None, [], 31)
    batch_rates(made.database)
    queries.waiting_pairs(made.database)
    live_workers(made.database, made.settings.lease_seconds)


def _asked_by_a_tick(database: Database) -> None:
    queries.waiting(database, 5.0)
    releasable_batches(database)
    queries.work_under_way(database, "sdxl")
    chores.chores(database, 60.0)
    LastPacks(database).of("sdxl")
    ledger.return_queued(database)
    ledger.expire_leases(database, 3)


def _milliseconds(question: Callable[[], object]) -> float:
    began = time.perf_counter()
    question()
    return (time.perf_counter() - began) * 1000


def _sizes(database: Database) -> dict[str, float]:
    """Table or index → MB."""
    tables = "'^(pk_|uq_|ix_)?(jobs|packs|images|results)'"
    wanted = f"SELECT relname, pg_relation_size(oid) FROM pg_class WHERE relname ~ {tables} AND relkind IN ('r', 'i')"
    with database.begin(read_only=True) as tx:
        rows = tx.connection.exec_driver_sql(wanted).all()
    return {row[0]: round(row[1] / 1e6, 1) for row in sorted(rows, key=lambda row: -row[1])}


def _tell(figures: Figures, num_in_all: int) -> None:
    print(f"{figures.num_jobs:,} jobs that are done, made in {figures.fill_seconds:g} s; and {_NEW:,} new ones")
    for name, milliseconds in figures.cpu_ms.items():
        asker, rate = figures.asker_ms[name], figures.a_second[name]
        print(f"{name:24} {milliseconds:8.3f} ms of the server a job, {asker:8.3f} of the asker, {rate:8,.0f} jobs/s")
    for name, milliseconds in figures.answers.items():
        print(f"{name + ', ms':36} {milliseconds:12,.1f}")
    for name, megabytes in figures.sizes.items():
        print(f"{name + ', MB':36} {megabytes:12,.1f}")
    size_bytes = sum(figures.sizes.values()) * 1e6 / num_in_all
    print(f"{'all of them, bytes a job':36} {size_bytes:12,.0f}", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--jobs", type=_full_packs, default=100_000, help=f"that are done; full packs of {PACK_SIZE}")
    parser.add_argument("--most-ms", type=float, default=200.0, help="of an answer, by the clock")
    parser.add_argument("--record", default="benchmarks.jsonl")
    return parser.parse_args()


def _full_packs(written: str) -> int:
    if (num_jobs := int(written)) % PACK_SIZE:
        raise argparse.ArgumentTypeError(f"{num_jobs:,} is no multiple of {PACK_SIZE}")
    return num_jobs


if __name__ == "__main__":
    sys.exit(main())
