"""A farm of simulated devices on a real ledger: how busy they are, and what dispatcher, ledger and broker cost.

Dispatcher, PostgreSQL and Redis are real, and so is every message, claim, lease and result. A device "renders" a pack
for ``--pack-seconds`` and claims its next one meanwhile, as a worker does; time is simulated (``simulated_devices``).
Five pairs of three sizes each, and one odd size now and then. Exits 1 where devices are idle for more than 1 % of the
time, an image costs more than ``--most-ms``, a pack waits for too long, or anything is lost.

Bias: asking takes no time here, so busy is what the scheduling allows, and a farm that asks for more than its servers'
processors give is slower than that; PostgreSQL runs without fsync; one connection asks for all.
"""

import argparse
import sys

from benchmarks.record import append
from benchmarks.simulated_devices import PACKS_PER_DEVICE
from benchmarks.simulated_farm import PACK_SIZE, Measured, Size, simulated_farm
from farm.odd_shapes import odd_shape_seconds


def main() -> int:
    options = _options()
    with simulated_farm(Size(options.devices, options.pairs, options.packs, options.pack_seconds)) as farm:
        measured = farm.measured()
    seconds = options.packs * options.pack_seconds
    busy = 1 - measured.figures.idle_seconds / (options.devices * seconds)
    changes = measured.figures.num_changes / measured.figures.num_packs
    print(f"{options.devices:,} devices, {options.pairs} pairs, {options.pack_seconds:g} s a pack of {PACK_SIZE}:"
          f" {measured.num_images:,} images in {seconds:g} simulated seconds")  # fmt: skip
    print(f"{'busy':36} {busy:8.2%}")
    measured.print_costs()
    print(f"{'packs that change their size':36} {changes:8.1%}")
    print(f"{'longest wait in the queue':36} {measured.facts['longest_wait']:6.1f} s")
    figures = {**{name: getattr(options, name) for name in ("devices", "pairs", "pack_seconds", "packs")},
               "busy": round(busy, 4), "cpu_ms": {name: round(one, 3) for name, one in measured.cpu_ms.items()},
               "changes": round(changes, 3), **measured.facts}  # fmt: skip
    append("farm", options.record, figures)
    return _verdict(1 - busy, measured, options)


def _verdict(idle: float, measured: Measured, options: argparse.Namespace) -> int:
    passed_over = odd_shape_seconds(options.pack_seconds, PACKS_PER_DEVICE)
    longest, facts = passed_over + 3 * options.pack_seconds, measured.facts
    cost = measured.together_ms
    wrong = [
        f"devices were idle for {idle:.2%} of the time, at most 1 %" if idle > 0.01 else "",
        f"an image cost {cost:.2f} ms, at most {options.most_ms:g}" if cost > options.most_ms else "",
        f"a pack waited for {facts['longest_wait']} s" if facts["longest_wait"] > longest else "",
        f"{facts['expired']} packs lost their lease" if facts["expired"] else "",
        "" if measured.is_each_done_once else "results, images and done jobs are not equally many",
    ]
    print(*filter(None, wrong), sep="\n", file=sys.stderr)
    return int(any(wrong))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--pack-seconds", type=float, default=8.0)
    parser.add_argument("--packs", type=int, default=4, help="that each device renders after the warm-up")
    parser.add_argument("--most-ms", type=float, default=0.5, help="of CPU an image, of dispatcher, ledger and broker")
    parser.add_argument("--record", default="benchmarks.jsonl")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
