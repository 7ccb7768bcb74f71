"""What dispatching costs an image in packs of 8: CPU time of dispatcher, PostgreSQL and Redis, and of a worker's calls.

The farm of ``simulated_farm``: each device claims, begins, renews and finishes as a worker does, and renders nothing.
Exits 1 where an image costs more than ``--goal`` (dispatcher, PostgreSQL and Redis together, everything that the
workers ask of the servers included), or a job was not done once.

Bias: PostgreSQL runs without fsync; one connection asks for all, so each of its statements is prepared once; the time
of a processor that other work shares counts for more than that of an idle one.
"""

import argparse
import sys

from benchmarks.record import append
from benchmarks.simulated_farm import PACK_SIZE, Size, simulated_farm


def main() -> int:
    options = _options()
    with simulated_farm(Size(options.devices, options.pairs, options.packs, options.pack_seconds)) as farm:
        measured = farm.measured()
    print(f"{options.devices:,} devices, {options.pairs} pairs: {measured.num_images:,} images in packs of {PACK_SIZE}")
    measured.print_costs()
    figures = {
        **{name: getattr(options, name) for name in ("devices", "pairs", "pack_seconds", "packs")},
        "cpu_ms": {name: round(one, 3) for name, one in measured.cpu_ms.items()},
        "worker_ms": round(measured.worker_ms, 3),
        **measured.facts,
    }
    append("dispatch", options.record, figures)
    cost = measured.together_ms
    wrong = [
        f"an image cost {cost:.2f} ms, at most {options.goal:g}" if cost > options.goal else "",
        "" if measured.is_each_done_once else "results, images and done jobs are not equally many",
    ]
    print(*filter(None, wrong), sep="\n", file=sys.stderr)
    return int(any(wrong))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--devices", type=int, default=250)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--pack-seconds", type=float, default=8.0)
    parser.add_argument("--packs", type=int, default=3, help="that each device renders after the warm-up")
    parser.add_argument("--goal", type=float, default=0.5, help="CPU ms an image, of all three together")
    parser.add_argument("--record", default="benchmarks.jsonl")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
