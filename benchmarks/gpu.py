"""What a device renders: images/s for diffusers as documented, and for Nightshift with its device options one by one.

Bias: synthetic weights (the `full` pair has SDXL's architecture, so SDXL's work, and random numbers in it); the farm
around the device is not in it (`benchmarks/overhead.py` has that). Images/s come from the time of a single base step, a
refiner step and the rest of a pass, but for the rows that say "end to end", which are whole runs. What finishing takes
from OpenCV is done in NumPy, whether there is an OpenCV or not: bit by bit the same, but slower, so those rows'
finishers have more to do here than in a worker.
"""

import argparse
import sys
import time
from functools import partial
from math import isnan, nan
from pathlib import Path
from typing import Final

import torch

from benchmarks.figures import Figures
from benchmarks.option_rows import rows_for, rows_named
from benchmarks.plain_opencv import stand_in
from benchmarks.record import append
from benchmarks.tried_rows import TriedRows

stand_in()  # before the worker's modules want it: an OpenCV may be there and not load, for want of a display library

from benchmarks.device_bench import Bench, Sizes  # noqa: E402
from schemas.settings import load_settings  # noqa: E402
from worker.loading.pipelines import LoadedPair, dtype_name, load_pair  # noqa: E402
from worker.synthetic_pairs.synthetic import SYNTHETIC_SIZES, synthetic_pair_folder  # noqa: E402

#: side and images in a pass, where none are named: a CPU takes minutes for what a GPU does in seconds
_SIZES: Final = {"cuda": (1024, 8), "cpu": (64, 2)}
_TERA: Final = 1e12
#: of 1024 x 1024 with guidance, in TFLOP: see docs/performance.md
_BASE_STEP, _REFINER_STEP, _DECODING = 13.52, 14.57, 10.47
_COLUMNS: Final = (
    ("20 base/s", "images_per_s_20"), ("32+8/s", "images_per_s_40"), ("of matmul", "share_of_matmul"),
    ("base ms", "base_step_ms"), ("refiner ms", "refiner_step_ms"), ("denoising", "denoising"),
    ("decoding", "decoding"), ("waiting", "waiting"), ("GB", "peak_gb"), ("warm-up s", "warm_up_s"),
    ("differs", "difference"),
)  # fmt: skip


def main() -> None:
    options = _options()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("there is no CUDA device here; --device cpu --pair tiny tries the script out")
        return
    began = time.monotonic()
    pair, load_seconds = _loaded(options)
    bench = Bench(pair, Sizes(options.side, options.pass_size))
    rate = bench.matmul_rate()
    print(f"{options.pair} on {_device_name(pair)}, {pair.dtype}: cold start (loading) {load_seconds:.1f} s")
    print(f"matrix products: {rate / _TERA:.4g} TFLOP/s; images of {options.side} x {options.side}; passes of"
          f" {options.pass_size}")  # fmt: skip
    print(f"{'':<28}" + "".join(f"{title:>12}" for title, _ in _COLUMNS), flush=True)
    tried = TriedRows(bench, began + options.seconds, options.scale, partial(_shown, _flops(options), rate))
    tried.run(options.rows or rows_for(options.device))
    figures = {
        "device": _device_name(pair),
        **{name: getattr(options, name) for name in ("pair", "side", "pass_size")},
        "dtype": dtype_name(pair.dtype),
        "load_seconds": load_seconds,
        "matmul_tflops": rate / _TERA,
        "rows": tried.found,
        "left_out": tried.left_out,
    }
    append("gpu", options.record, figures)
    sys.exit(tried.exit_code())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pair", default="full")
    parser.add_argument("--device", choices=list(_SIZES), default="cuda")
    parser.add_argument("--dtype", choices=["float16", "bfloat16", "float32"], help="else float16, on a CPU float32")
    parser.add_argument("--side", type=int, help="else 1024, on a CPU 64")
    parser.add_argument("--pass-size", type=int, help="else 8, on a CPU 2")
    parser.add_argument("--seconds", type=float, default=520, help="what would take longer is left out, and said")
    parser.add_argument("--rows", type=rows_named, help="of these names only, in their order")
    parser.add_argument("--record", type=Path, default=Path("benchmarks.jsonl"))
    options = parser.parse_args()
    side, pass_size = _SIZES[options.device]
    options.side, options.pass_size = options.side or side, options.pass_size or pass_size
    options.scale = 1.0 if options.pair == "full" else 0.1
    if options.device == "cpu":
        options.scale *= options.side**2 * options.pass_size / (side**2 * pass_size)
    return options


def _loaded(options: argparse.Namespace) -> tuple[LoadedPair, float]:
    """A synthetic pair is made first, which is no part of a start."""
    settings = load_settings()
    description = settings.model_pair(options.pair).model_copy(update={"dtype": options.dtype})
    cache = settings.home / "cache"
    if options.pair in SYNTHETIC_SIZES:
        synthetic_pair_folder(options.pair, cache)
    started = time.monotonic()
    return load_pair(description, options.device, cache), time.monotonic() - started


def _flops(options: argparse.Namespace) -> tuple[float, float] | None:
    """Of one image at 20 base steps, and at 32 + 8; known for SDXL at its own size."""
    if options.pair == "tiny" or options.side != 1024:
        return None
    return 20 * _BASE_STEP + _DECODING, 32 * _BASE_STEP + 8 * _REFINER_STEP + _DECODING


def _shown(flops: tuple[float, float] | None, rate: float, name: str, figures: Figures) -> dict[str, float]:
    values = dict(vars(figures))
    values["share_of_matmul"] = figures.images_per_s_40 * flops[1] * _TERA / rate if flops else nan
    cells = ["" if isnan(values[key]) else f"{values[key]:.4g}" for _, key in _COLUMNS]
    print(f"{name:<28}" + "".join(f"{cell:>12}" for cell in cells), flush=True)
    return {key: round(float(value), 5) for key, value in values.items() if not isnan(value)}


def _device_name(pair: LoadedPair) -> str:
    return torch.cuda.get_device_name(pair.device) if pair.device.type == "cuda" else "cpu"


if __name__ == "__main__":
    main()
