"""What a larger forward pass buys: images/s and peak memory by the number of images in it, on one pair and device.

The same images are rendered in passes of 1, 2, 4, 8, ..., each size in its turn, and the best of the rounds counts. In
every other round they stand the other way round. Each image is the same, bit for bit, in all rounds of a size; and it
is the one that a pass of one image gives, but for rounding: the tolerance is printed, and another seed's image is
outside of it. Exit code 1 where that is not so.

Bias: on a CPU there is no launching of kernels to save, and a larger pass leaves the caches sooner, so a CPU shows less
than a GPU does. Images/s by the clock are of a machine that does nothing else; those by the processor's time change
less with what else it does, but do not see a GPU.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.record import append
from schemas.settings import load_settings
from schemas.spec import JobSpec
from worker.loading.pipelines import LoadedPair, dtype_name, load_pair
from worker.passes.memory_probe import GpuMemory, MemoryProbe, ProcessMemory
from worker.passes.rendering import render

#: of an image's values, as large a share may be off by more than 1 of 255, by the dtype that denoises
_TOLERANCES = {"float32": 1e-4, "float16": 0.05, "bfloat16": 0.25}
_COLUMNS = ("in a pass", "images/s", "to one", "images/CPU s", "to one", "peak MB", "values off")

Images = list[np.ndarray]


@dataclass
class Size:
    """What was found of passes of so many images."""

    num_images: int
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    #: of the first round
    images: Images = field(default_factory=list)


def main() -> None:
    options = _options()
    settings = load_settings()
    described = settings.model_pair(options.pair).model_copy(update={"dtype": options.dtype})
    pair = load_pair(described, options.device, settings.home / "cache")
    specs = [_spec(seed, options) for seed in range(max(options.sizes))]
    sizes = [Size(num_images) for num_images in options.sizes]
    for size in sizes:
        size.peak_bytes = _peak_bytes(pair, specs[: size.num_images])  # and kernels are chosen
    for number in range(options.rounds):
        for size in sizes:
            _one_round(pair, specs, size, backwards=number % 2 == 1)
    found = _checked(sizes, _TOLERANCES[dtype_name(pair.dtype)])
    _print(sizes, found, len(specs))
    append("batching", options.record, _figures(sizes, found, len(specs), options))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pair", default="tiny", choices=["tiny", "full"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", choices=list(_TOLERANCES), help="else the pair's own for that device")
    parser.add_argument("--side", type=int, default=128, help="width and height")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--sizes", type=_powers_of_two, default=[1, 2, 4, 8])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--record", type=Path, default=Path("benchmarks.jsonl"))
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error("--rounds: at least 2, to compare them")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device here; --device cpu")
    return options


def _powers_of_two(text: str) -> list[int]:
    sizes = sorted({1, *map(int, text.split(","))})
    if any(size & (size - 1) for size in sizes):
        raise argparse.ArgumentTypeError("passes have 1, 2, 4, 8, ... images")
    return sizes


def _spec(seed: int, options: argparse.Namespace) -> JobSpec:
    size = {"width": options.side, "height": options.side, "num_inference_steps": options.steps}
    return JobSpec.parse({"prompt": f"a lighthouse in storm number {seed}", "seed": seed, **size})


def _peak_bytes(pair: LoadedPair, specs: Sequence[JobSpec]) -> int:
    probe: MemoryProbe = GpuMemory(pair.device) if pair.device.type == "cuda" else ProcessMemory(0)
    probe.begin()
    render(pair, specs)
    return probe.peak_bytes()


def _one_round(pair: LoadedPair, specs: list[JobSpec], size: Size, *, backwards: bool) -> None:
    """Renders all specs in passes of this size. Pictures come back to the host, so the device has ended its work."""
    ordered = specs[::-1] if backwards else specs
    started, cpu_started = time.perf_counter(), time.process_time()
    images = []
    for first in range(0, len(ordered), size.num_images):
        images += render(pair, ordered[first : first + size.num_images]).images
    size.seconds.append(time.perf_counter() - started)
    size.cpu_seconds.append(time.process_time() - cpu_started)
    images = images[::-1] if backwards else images
    size.images = size.images or images
    if any(image is None for image in images):
        sys.exit(f"passes of {size.num_images}: an image is broken")
    if not all(map(np.array_equal, images, size.images)):
        sys.exit(f"passes of {size.num_images}: an image is not the same with other neighbours")


def _checked(sizes: list[Size], tolerance: float) -> list[float]:
    """Of each size, the largest share of an image's values that are off by more than 1 from the pass of one."""
    reference = sizes[0].images
    found = [max(map(_share_off, size.images, reference)) for size in sizes]
    others = min(map(_share_off, reference, reference[1:]), default=1.0)
    print(f"at most {tolerance:.2%} of an image's values may be off by more than 1 of 255; of another seed's image"
          f" {others:.0%} are")  # fmt: skip
    if max(found) > tolerance or others <= tolerance:
        sys.exit(f"the images are not those of passes of one: {max(found):.2%} of the values are off")
    return found


def _share_off(image: np.ndarray, reference: np.ndarray) -> float:
    return float((np.abs(image.astype(int) - reference.astype(int)) > 1).mean())


def _print(sizes: list[Size], found: list[float], num_images: int) -> None:
    print("".join(f"{name:>14}" for name in _COLUMNS))
    one = sizes[0]
    for size, off in zip(sizes, found, strict=True):
        rates = [
            (num_images / min(here), min(alone) / min(here))
            for here, alone in ((size.seconds, one.seconds), (size.cpu_seconds, one.cpu_seconds))
        ]
        print(f"{size.num_images:>14}" + "".join(f"{rate:>14.3f}{times:>14.2f}" for rate, times in rates)
              + f"{size.peak_bytes / 1e6:>14,.0f}{off:>14.4%}")  # fmt: skip


def _figures(sizes: list[Size], found: list[float], num_images: int, options: argparse.Namespace) -> dict[str, Any]:
    chosen = {name: getattr(options, name) for name in ("pair", "device", "dtype", "side", "steps")}
    passes = [
        {
            "images": size.num_images,
            "images_per_s": [round(num_images / seconds, 4) for seconds in size.seconds],
            "images_per_cpu_s": [round(num_images / seconds, 4) for seconds in size.cpu_seconds],
            "peak_mb": round(size.peak_bytes / 1e6),
            "share_off": off,
        }
        for size, off in zip(sizes, found, strict=True)
    ]
    return {**chosen, "num_images": num_images, "passes": passes}


if __name__ == "__main__":
    main()
