"""What a device renders: images/s for diffusers as documented, and for Nightshift with its device options one by one.

Bias: synthetic weights (the `full` pair has SDXL's architecture, so SDXL's work, and random numbers in it); the farm
around the device is not in it (`benchmarks/overhead.py` has that). Images/s come from the time of a single base step, a
refiner step and the rest of a pass, but for the rows that say "end to end", which are whole runs.
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from math import isnan, nan
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.option_rows import NOT_ON_A_CPU, ROWS, Row
from benchmarks.plain_opencv import stand_in
from benchmarks.record import append

HAS_NO_OPENCV: Final = stand_in()  # before the worker's modules want it

from benchmarks.device_bench import Bench, Figures, Sizes  # noqa: E402
from schemas.settings import load_settings  # noqa: E402
from worker.loading.pipelines import LoadedPair, dtype_name, load_pair  # noqa: E402
from worker.synthetic_pairs.synthetic import SYNTHETIC_SIZES, synthetic_pair_folder  # noqa: E402

_SCRIPT: Final = Row("diffusers as documented")
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
        print("there is no CUDA device here; --device cpu --pair tiny --side 64 tries the script out")
        return
    began = time.monotonic()
    pair, load_seconds = _loaded(options)
    bench = Bench(pair, Sizes(options.side, options.pass_size))
    rate = bench.matmul_rate()
    print(f"{options.pair} on {_device_name(pair)}, {pair.dtype}: cold start (loading) {load_seconds:.1f} s")
    print(f"matrix products: {rate / _TERA:.4g} TFLOP/s; images of {options.side} x {options.side}; passes of"
          f" {options.pass_size}{'; no OpenCV here: its part is done in NumPy' if HAS_NO_OPENCV else ''}")  # fmt: skip
    print(f"{'':<28}" + "".join(f"{title:>12}" for title, _ in _COLUMNS))
    flops = _flops(options)
    found = {_SCRIPT.name: _tried(bench.naive, _SCRIPT, flops, rate)}
    deadline = began + options.seconds
    for row in _chosen(options):
        left, needed = deadline - time.monotonic(), row.seconds * options.scale
        if left < needed:
            print(f"{row.name:<28}   skipped: {left:.0f} s are left (--seconds), and it takes about {needed:.0f}")
            continue
        found[row.name] = _tried(partial(bench.row, row), row, flops, rate)
    figures = {
        "device": _device_name(pair),
        **{name: getattr(options, name) for name in ("pair", "side", "pass_size")},
        "dtype": dtype_name(pair.dtype),
        "load_seconds": load_seconds,
        "matmul_tflops": rate / _TERA,
        "rows": found,
    }
    append("gpu", options.record, figures)
    failed = [name for name, one in found.items() if "failure" in one]
    sys.exit(f"failed, or other pictures than stated: {', '.join(failed)}" if failed else 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pair", default="full")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", choices=["float16", "bfloat16", "float32"], help="else float16, on a CPU float32")
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--pass-size", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=520, help="what would take longer is left out, and said")
    parser.add_argument("--rows", type=lambda text: text.split(","), help="of these names only, in their order")
    parser.add_argument("--record", type=Path, default=Path("benchmarks.jsonl"))
    options = parser.parse_args()
    options.scale = 1.0 if options.pair == "full" else 0.1
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


def _chosen(options: argparse.Namespace) -> list[Row]:
    if options.rows is not None:
        return [row for row in ROWS if row.name in options.rows]
    return [row for row in ROWS if options.device == "cuda" or row.name not in NOT_ON_A_CPU]


def _tried(measure: Callable[[], Figures], row: Row, flops: tuple[float, float] | None, rate: float) -> dict[str, Any]:
    """Whatever goes wrong with one row, the others are measured, and all is recorded."""
    try:
        figures = measure()
    except ValueError as refusal:
        return _not_measured(row, "not here", refusal)
    except Exception as failure:
        return _not_measured(row, "failure", failure)
    shown = _shown(row.name, figures, flops, rate)
    if figures.difference <= row.tolerance:
        return shown
    differs = f"images differ by {figures.difference:.3g} of 255, more than {row.tolerance:g}"
    print(f"{row.name:<28}   {differs}", flush=True)
    return {**shown, "failure": differs}


def _not_measured(row: Row, what: str, error: Exception) -> dict[str, str]:
    sentence = f"{type(error).__name__}: {error}".splitlines()[0]
    print(f"{row.name:<28}   {what}: {sentence}", flush=True)
    return {what: sentence}


def _flops(options: argparse.Namespace) -> tuple[float, float] | None:
    """Of one image at 20 base steps, and at 32 + 8; known for SDXL at its own size."""
    if options.pair == "tiny" or options.side != 1024:
        return None
    return 20 * _BASE_STEP + _DECODING, 32 * _BASE_STEP + 8 * _REFINER_STEP + _DECODING


def _shown(name: str, figures: Figures, flops: tuple[float, float] | None, rate: float) -> dict[str, float]:
    values = dict(vars(figures))
    values["share_of_matmul"] = figures.images_per_s_40 * flops[1] * _TERA / rate if flops else nan
    print(f"{name:<28}" + "".join(f"{values[key]:>12.4g}" for _, key in _COLUMNS), flush=True)
    return {key: round(float(value), 5) for key, value in values.items() if not isnan(value)}


def _device_name(pair: LoadedPair) -> str:
    return torch.cuda.get_device_name(pair.device) if pair.device.type == "cuda" else "cpu"


if __name__ == "__main__":
    main()
