"""What a device renders: images/s by forward-pass size, where the time of a pass goes, and how much memory it takes.

Bias: synthetic weights (the `full` pair has SDXL's architecture, so SDXL's work, and random numbers in it); the farm
around the device is not in it (`benchmarks/overhead.py` has that). Each pass is rendered once before it is timed.
"""

import argparse
import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path

import torch

from schemas.settings import load_settings
from schemas.spec import JobSpec
from worker.decoding import pictures
from worker.denoising import Denoised, denoise
from worker.embedding import embed
from worker.pipelines import LoadedPair, load_pair
from worker.prompts import base_prompts, refiner_prompts
from worker.remembered_texts import RememberedTexts

_COLUMNS = ("images", "images_per_s", "seconds", "embed", "base_step", "refiner_step", "decode", "peak_gb")
_LIBRARIES = ("torch", "diffusers", "transformers", "accelerate")


def main() -> None:
    options = _options()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("there is no CUDA device here; --device cpu --pair tiny --side 64 tries the script out")
        return
    settings = load_settings()
    pair_of = settings.model_pair(options.pair).model_copy(update={"dtype": options.dtype})
    started = time.monotonic()
    pair = load_pair(pair_of, options.device, settings.home / "cache")
    load_seconds = time.monotonic() - started
    print(f"{options.pair} on {_device_name(pair)}, {options.dtype}: loaded in {load_seconds:.1f} s")
    print(" ".join(f"{name:>12}" for name in _COLUMNS))
    passes = []
    for size in options.sizes:
        passes.append(_measured(pair, size, options))
        print(" ".join(f"{passes[-1][name]:>12.4g}" for name in _COLUMNS), flush=True)
    record = {
        "benchmark": "gpu",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {_device_name(pair)}",
        "versions": {name: version(name) for name in _LIBRARIES},
        **{name: getattr(options, name) for name in ("pair", "dtype", "side", "steps", "refiner_steps")},
        "load_seconds": round(load_seconds, 1),
    }
    record["passes"] = [{name: round(value, 5) for name, value in one.items()} for one in passes]
    with open(options.record, "a", encoding="utf-8") as stream:
        stream.write(json.dumps(record) + "\n")
    print(f"appended to {options.record}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pair", default="full")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="float16", choices=["float16", "bfloat16", "float32"])
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--refiner-steps", type=int, default=8)
    parser.add_argument("--sizes", type=lambda text: [int(size) for size in text.split(",")], default=[1, 2, 4, 8])
    parser.add_argument("--record", type=Path, default=Path("benchmarks.jsonl"))
    return parser.parse_args()


def _device_name(pair: LoadedPair) -> str:
    return torch.cuda.get_device_name(pair.device) if pair.device.type == "cuda" else "cpu"


def _measured(pair: LoadedPair, size: int, options: argparse.Namespace) -> dict[str, float]:
    """One pass of ``size`` images: seconds of the whole and of its parts, a step's on the average."""
    _rendered(pair, [_spec(seed, options, num_steps=2) for seed in range(size)], [])
    if pair.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    specs = [_spec(seed, options, options.steps) for seed in range(size)]
    times, texts = [_now(pair)], RememberedTexts()
    with torch.inference_mode():
        for spec in specs:
            embed(pair.base, base_prompts(spec), texts), embed(pair.refiner, refiner_prompts(spec), texts)
    times.append(_now(pair))
    steps: list[float] = []
    denoised = _rendered(pair, specs, steps)
    times.append(_now(pair))
    pictures(pair.base.vae, denoised.latents)
    times.append(_now(pair))
    began, embedded, denoising_ended, ended = times
    return {
        "images": size,
        "images_per_s": size / (ended - embedded),
        "seconds": ended - embedded,
        "embed": embedded - began,
        "base_step": _mean_gap(steps[: denoised.base_steps]),
        "refiner_step": _mean_gap(steps[denoised.base_steps :]),
        "decode": ended - denoising_ended,
        "peak_gb": torch.cuda.max_memory_allocated() / 1e9 if pair.device.type == "cuda" else 0.0,
    }


def _rendered(pair: LoadedPair, specs: list[JobSpec], steps: list[float]) -> Denoised:
    """Notes when each step ended. The first pass of a size is for the libraries, which choose their kernels in it."""

    def note() -> bool:
        steps.append(_now(pair))
        return False

    return denoise(pair, specs, note)


def _spec(seed: int, options: argparse.Namespace, num_steps: int) -> JobSpec:
    refiner = {"start_step": max(1, num_steps - options.refiner_steps)}
    size = {"width": options.side, "height": options.side, "num_inference_steps": num_steps}
    return JobSpec.parse({"prompt": f"a lighthouse in storm number {seed}", "seed": seed, "refiner": refiner, **size})


def _now(pair: LoadedPair) -> float:
    if pair.device.type == "cuda":
        torch.cuda.synchronize()
    return time.monotonic()


def _mean_gap(times: list[float]) -> float:
    return (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.0


if __name__ == "__main__":
    main()
