"""What it costs to finish one 1024² image, step by step, on one core, and how long each step keeps the GIL.

Finishers are threads beside the one that feeds the device: what counts for it is not how long a step takes, but how
long it keeps the interpreter's lock. A heartbeat thread that wants it every millisecond notes how long it had to wait:
the longest wait, and all of them together.

Bias: the picture is made up (soft shapes with grain); a real one compresses a little differently. ms is the processor's
time, which other processes change little; the heartbeat waits for them too, so the smallest of several rounds is given.
"""

import argparse
import hashlib
import json
import os
import platform
import statistics
import threading
import time
from collections.abc import Callable
from importlib.metadata import version

import cv2
import numpy as np
from imwatermark import WatermarkDecoder, WatermarkEncoder

from farm.watermark import WATERMARK_BITS, Pixels, num_bits_read, put_watermark
from schemas.output import Output
from worker.containers import Metadata, with_metadata
from worker.encoding import decoded, encoded

_BEAT_SECONDS = 0.001
_METADATA = Metadata("a cat\nSteps: 40" * 20, {"nightshift": 1, "spec": {"prompt": "a cat" * 200}}, "<x/>" * 100)


def main() -> None:
    options = _options()
    cv2.setNumThreads(1)
    found = {}
    print(f"{'step':32} {'ms':>8} {'longest wait':>13} {'all waits, ms':>14} {'kB':>7}")
    for name, step in _steps(_picture(options.side)).items():
        answer = step()
        milliseconds, (longest, together) = _milliseconds(step, options.rounds), _waits(step, options.rounds)
        size = f"{len(answer) / 1000:>7,.0f}" if isinstance(answer, bytes) else ""
        print(f"{name:32} {milliseconds:>8.1f} {longest:>13.1f} {together:>14.1f} {size}")
        found[name] = {"ms": round(milliseconds, 2), "longest_wait": round(longest, 2), "waits": round(together, 2)}
    record = {
        "benchmark": "finishing",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("numpy", "pillow", "pywavelets", "opencv-python-headless")},
        "side": options.side,
        "steps": found,
    }
    with open(options.record, "a", encoding="utf-8") as stream:
        stream.write(json.dumps(record) + "\n")
    print(f"appended to {options.record}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--record", default="benchmarks.jsonl")
    return parser.parse_args()


def _picture(side: int) -> Pixels:
    y, x = np.mgrid[0:side, 0:side]
    waves = [128 + 60 * np.sin(x / (50 + 9 * n)) * np.cos(y / (65 - 5 * n)) for n in range(3)]
    grain = np.random.default_rng(1).normal(0, 4, (side, side, 3))
    return (np.stack(waves, axis=-1) + grain).clip(0, 255).astype(np.uint8)


def _steps(pixels: Pixels) -> dict[str, Callable[[], object]]:
    bgr = np.ascontiguousarray(pixels[:, :, ::-1])
    stock = WatermarkEncoder()
    stock.set_watermark("bits", list(WATERMARK_BITS))
    files = {
        "png, level 6": (Output(), 6),
        "png, level 1": (Output(), 1),
        "webp, lossless": (Output(format="webp"), 6),
        "webp, quality 90": (Output(format="webp", quality=90), 6),
        "jpeg, quality 95": (Output(format="jpeg"), 6),
    }
    contents = {name: encoded(pixels, *file) for name, file in files.items()}
    return {
        "watermark": lambda: put_watermark(pixels),
        "watermark, stock code": lambda: stock.encode(bgr, "dwtDct"),
        "reading it back": lambda: num_bits_read(pixels),
        "reading it back, stock code": lambda: WatermarkDecoder("bits", 48).decode(bgr, "dwtDct"),
        **{name: lambda file=file: encoded(pixels, *file) for name, file in files.items()},
        **{
            f"decoding {name}": lambda content=contents[name]: decoded(content)
            for name in ("webp, quality 90", "jpeg, quality 95")
        },
        **{
            f"metadata of {name}": lambda name=name: with_metadata(contents[name], files[name][0], _METADATA)
            for name in ("png, level 6", "webp, lossless", "jpeg, quality 95")
        },
        "sha256 of the pixels": lambda: hashlib.sha256(pixels.tobytes()).hexdigest(),
        "sha256 of the png": lambda: hashlib.sha256(contents["png, level 6"]).hexdigest(),
    }


def _milliseconds(step: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        started = time.thread_time()
        step()
        times.append(time.thread_time() - started)
    return statistics.median(times) * 1000


def _waits(step: Callable[[], object], rounds: int) -> tuple[float, float]:
    """The longest and all of the heartbeat's waits, in ms."""
    waits = [_beats(step) for _ in range(rounds)]
    return min(max(some) for some in waits) * 1000, min(sum(some) for some in waits) * 1000


def _beats(step: Callable[[], object]) -> list[float]:
    """How much too late each beat came while the step ran, in seconds."""
    stop, beating, late = threading.Event(), threading.Event(), [0.0]

    def beat() -> None:
        while not stop.is_set():
            due = time.perf_counter() + _BEAT_SECONDS
            time.sleep(_BEAT_SECONDS)
            late.append(time.perf_counter() - due)
            beating.set()

    thread = threading.Thread(target=beat)
    thread.start()
    beating.wait()
    late[:] = [0.0]
    step()
    stop.set()
    thread.join()
    return late


if __name__ == "__main__":
    main()
