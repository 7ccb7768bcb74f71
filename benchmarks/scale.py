"""How the ledger grows: rates, answers and sizes with so many jobs in it that are done, on a real PostgreSQL.

The done jobs, with their packs, images and results, are made in bulk by the server itself, a million of them to a
batch. Then an open batch is submitted, released, claimed and finished by the ledger's own functions, and the questions
of `nightshift status` and of a page are asked. Exits 1 where an answer takes more than ``--most-ms``, or where a job
was not done once.

Bias: PostgreSQL runs without fsync, and the rows are alike: one short prompt each, one environment.
"""

import argparse
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import Any

from benchmarks.record import append
from benchmarks.simulated_devices import ENVIRONMENT, simulated_images
from benchmarks.simulated_farm import PACK_SIZE, cpu_seconds, simulated_device, simulated_job
from farm import batches, ledger, packs
from farm.database import Database
from farm.leases import ledger_time
from farm.schema import upgrade
from producer import chores, queries
from producer.job_results import job_results
from producer.night import night
from producer.rate import images_per_second
from schemas.settings import Settings
from tests.servers import PostgresServer, temporary_folder

_BATCH = 1_000_000
_NEW = 8_000
_CHUNK = 2_000


def main() -> int:
    options = _options()
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        server = PostgresServer(folder)
        server.start()
        stack.callback(server.stop)
        database = stack.enter_context(closing(Database(stack.enter_context(server.new_database()))))
        upgrade(database)
        device = simulated_device(database, "sdxl")
        for start in range(0, options.jobs, _BATCH):
            _fill(database, device.worker_id, start, min(_BATCH, options.jobs - start))
        with database.begin(read_only=True) as tx:
            tx.connection.exec_driver_sql("VACUUM ANALYZE")
        figures = {"jobs": options.jobs, **_rates(database, server.pid, device.worker_id)}
        answers = _answers(database, Settings(home=folder))
        sizes = _sizes(database)
    return _told(figures, answers, sizes, options)


def _fill(database: Database, worker_id: str, start: int, num_jobs: int) -> None:
    """A batch whose jobs are done, some days ago."""
    batch_id = batches.create_batch(database, f"batch from {start}", "sdxl", 5)
    environment = ENVIRONMENT
    values = {"batch": batch_id, "start": start, "num": num_jobs, "worker": worker_id, "digest": environment.digest,
              "environment": environment.model_dump_json(), "spec": simulated_job(1).spec,
              "key": simulated_job(1).pack_key, "size": PACK_SIZE}  # fmt: skip
    with database.begin() as tx:
        for statement in _FILL.split(";"):
            tx.connection.exec_driver_sql(statement, values)


_FILL = """
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
    INSERT INTO images (uri, sha256, pixel_sha256, size_bytes, width, height, format, spec_digest, pair_fingerprint,
                        created_at)
    SELECT 'file:///images/' || md5('a' || id) || md5('b' || id) || '.png', md5('a' || id) || md5('b' || id),
           md5('c' || id) || md5('d' || id), 1500000, 1024, 1024, 'png', spec_digest, repeat('f', 64), now()
    FROM jobs WHERE batch_id = %(batch)s ORDER BY id;
    INSERT INTO results (job_id, image_id, environment_digest, provenance, worker_id, pack_id, attempt, render_seconds,
                         finish_seconds, finished_at)
    SELECT jobs.id, images.id, %(digest)s,
           '{"handoff": "sigmas", "forward_pass_size": 8, "base_steps": 32, "refiner_steps": 8, "prompt_chunks": 1}',
           %(worker)s, pack_id, 1, 1.0, 0.1, now() - interval '9 days' + jobs.id * interval '0.0125 s'
    FROM jobs JOIN images USING (spec_digest) WHERE batch_id = %(batch)s ORDER BY jobs.id;
    UPDATE batches SET num_done = %(num)s, state = 'open', opened_at = now() WHERE id = %(batch)s
"""


def _rates(database: Database, server: int, worker_id: str) -> dict[str, float]:
    """CPU ms a job of the server, of each step of a new batch."""
    batch_id = batches.create_batch(database, "new", "sdxl", 5)
    figures = dict[str, float]()

    def step(name: str, what: Callable[[], Any]) -> Any:
        before = cpu_seconds({"server": server})["server"]
        made = what()
        figures[f"{name}_ms"] = round((cpu_seconds({"server": server})["server"] - before) / _NEW * 1000, 4)
        return made

    def claimed() -> list[Any]:
        return [ledger.claim_pack(database, pack.id, worker_id, 600.0, "") for pack in released]

    jobs = [simulated_job(number) for number in range(1, _NEW + 1)]
    step(
        "submit", lambda: [ledger.stage_jobs(database, batch_id, jobs[n : n + _CHUNK]) for n in range(0, _NEW, _CHUNK)]
    )
    batches.open_batch(database, batch_id)
    released = step("release", lambda: _released(database, batch_id))
    held = [pack for pack in step("claim", claimed) if pack is not None]
    step("begin", lambda: [packs.begin_rendering(database, pack.id, worker_id) for pack in held])
    environment = ENVIRONMENT
    step("finish", lambda: [ledger.finish_jobs(database, one, environment, simulated_images(one)) for one in held])
    figures["done"] = queries.batch_summary(database, batch_id).num_done
    return figures


def _released(database: Database, batch_id: int) -> list[Any]:
    released = list[Any]()
    while packs_of_batch := ledger.release_packs(database, batch_id, 10, PACK_SIZE):
        released += packs_of_batch
    return released


def _answers(database: Database, settings: Settings) -> dict[str, float]:
    """ms by the clock of each question, the fastest of five."""
    newest = queries.batch_summaries(database, 1)[0].id
    asked: dict[str, Callable[[], object]] = {
        "status": lambda: night(database, settings, ledger_time(database)),
        "batches": lambda: queries.batch_summaries(database, 20),
        "a batch": lambda: queries.batch_summary(database, newest),
        "its rate": lambda: images_per_second(database, newest),
        "its failures": lambda: queries.failures(database, newest, 5),
        "a page of jobs": lambda: next(job_results(database, 1)),
        "samples": lambda: queries.sampled_results(database, 1, _BATCH, 24),
        "a tick's questions": lambda: _asked_by_a_tick(database),
    }
    return {name: round(min(_milliseconds(question) for _ in range(5)), 1) for name, question in asked.items()}


def _asked_by_a_tick(database: Database) -> None:
    queries.waiting(database, 5.0)
    queries.releasable_batches(database)
    queries.work_under_way(database, "sdxl")
    chores.chores(database, 60.0)
    queries.pack_seconds(database, "sdxl")
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


def _told(figures: dict[str, float], answers: dict[str, float], sizes: dict[str, float], options: Any) -> int:
    print(f"{options.jobs:,} jobs that are done, and {_NEW:,} new ones")
    for name, value in figures.items():
        print(f"{name:36} {value:12,.3f}")
    for name, milliseconds in answers.items():
        print(f"{name + ', ms':36} {milliseconds:12,.1f}")
    for name, megabytes in sizes.items():
        print(f"{name + ', MB':36} {megabytes:12,.1f}")
    print(f"{'all of them, bytes a job':36} {sum(sizes.values()) * 1e6 / (options.jobs + _NEW):12,.0f}")
    append("scale", options.record, {**figures, "answers_ms": answers, "sizes_mb": sizes})
    slow = [
        f"{name} took {took} ms, at most {options.most_ms:g}"
        for name, took in answers.items()
        if took > options.most_ms
    ]
    wrong = [*slow, *([] if figures["done"] == _NEW else [f"{figures['done']} of {_NEW} new jobs are done"])]
    print(*wrong, sep="\n", file=sys.stderr)
    return int(bool(wrong))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--most-ms", type=float, default=200.0, help="of an answer, by the clock")
    parser.add_argument("--record", default="benchmarks.jsonl")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
