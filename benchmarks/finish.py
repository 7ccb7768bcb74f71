"""What it costs to finish one 1024² image, beside the stock parts, and how long each step keeps the GIL.

Finishers are threads beside the one that feeds the device: what counts for it is not how long a step takes, but how
long it keeps the interpreter's lock. A heartbeat thread that wants it every millisecond notes how long it had to wait:
the longest wait, and all of them together. Every kind of picture is read back by Pillow and by OpenCV, pixel for pixel,
and its file held against Pillow's.

Bias: the pictures are made up; real ones compress a little differently. ms is the processor's time, which other
processes make longer, but not by much; the heartbeat waits for them too. So the smallest of several rounds is given.
"""

import argparse
import hashlib
import io
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers.pipelines.stable_diffusion_xl.watermark import StableDiffusionXLWatermarker
from imwatermark import WatermarkDecoder
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from benchmarks.made_up_pictures import PICTURES, grained
from benchmarks.record import append
from farm.image_store import ImageStore
from farm.watermark import Pixels, num_bits_read, put_watermark
from schemas.output import Output
from schemas.provenance import Environment, Provenance
from schemas.records import ClaimedJob
from schemas.settings import QUICK_PNG
from schemas.spec import JobSpec
from worker.image_files.containers import Metadata, with_metadata
from worker.image_files.encoding import decoded, encoded
from worker.image_files.finishing import FileMaker, Finisher, Unfinished

_BEAT_SECONDS = 0.001
#: as in a worker process: after so long a thread that runs Python hands the GIL over, between two calls
_SWITCH_SECONDS = 0.001
_SPEC = JobSpec.parse({"prompt": "a lighthouse in a storm, oil painting " * 5, "seed": 7})
_METADATA = Metadata("a cat\nSteps: 40" * 20, {"nightshift": 1, "spec": {"prompt": "a cat" * 200}}, "<x/>" * 100)
_ENVIRONMENT = Environment(
    pair="sdxl", pair_fingerprint="f" * 64, base="base", base_revision="abc", base_hash="0" * 10, refiner="refiner",
    refiner_revision="abc", refiner_hash="1" * 10, license="none", versions={"nightshift": "0"}, device="cpu",
    dtype="float32", attention_backend="sdpa",
)  # fmt: skip
_PROVENANCE = Provenance(
    handoff="lossless", forward_pass_size=8, base_steps=32, refiner_steps=8, handoff_sigma=0.5, prompt_chunks=1,
    refiner_prompt_chunks=1, watermark_bits=None,
)  # fmt: skip
_WHOLE, _STOCK = "one png, whole", "one png, stock parts"


def main() -> None:
    options = _options()
    sys.setswitchinterval(_SWITCH_SECONDS)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="nightshift-bench-") as folder:
        steps = _measured(_steps(grained(options.side), Path(folder)), options.rounds)
    files = _files(options.side, options.rounds)
    largest = max(file["to_pillow"] for file in files.values())
    found = steps[_WHOLE]
    share = found["ms"] / steps[_STOCK]["ms"]
    print(f"\n{found['ms']:.1f} ms, {share:.1%} of the stock parts; the longest wait for the GIL was"
          f" {found['longest_wait']:.1f} ms; files are at the most {largest:.3f} times Pillow's")  # fmt: skip
    figures = {"side": options.side, "share_of_stock": round(share, 4), "steps": steps, "files": files}
    append("finish", options.record, figures)
    well = found["ms"] <= options.goal and largest <= options.size_goal and found["longest_wait"] < options.wait_goal
    sys.exit(0 if well else 1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--goal", type=float, default=45.0, help="ms of the processor for one whole PNG")
    parser.add_argument("--size-goal", type=float, default=1.08, help="times Pillow's file of level 6")
    parser.add_argument(
        "--wait-goal", type=float, default=5.0, help="ms that the GIL is waited for while one is finished"
    )
    parser.add_argument("--record", default="benchmarks.jsonl")
    return parser.parse_args()


def _steps(pixels: Pixels, folder: Path) -> dict[str, Callable[[], object]]:
    marked = put_watermark(pixels)
    bgr = np.ascontiguousarray(marked[:, :, ::-1])
    files = {
        "png": (Output(), QUICK_PNG),
        "png, Pillow's level 6": (Output(), 6),
        "webp, lossless": (Output(format="webp"), QUICK_PNG),
        "webp, quality 90": (Output(format="webp", quality=90), QUICK_PNG),
        "jpeg, quality 95": (Output(format="jpeg"), QUICK_PNG),
    }
    contents = {name: encoded(marked, *file) for name, file in files.items()}
    return {
        _WHOLE: _finishing(pixels, folder),
        _STOCK: _stock(pixels),
        "watermark": lambda: put_watermark(pixels),
        "reading it back": lambda: num_bits_read(marked),
        "reading it back, stock code": lambda: WatermarkDecoder("bits", 48).decode(bgr, "dwtDct"),
        **{name: lambda file=file: encoded(marked, *file) for name, file in files.items()},
        **{
            f"decoding {name}": lambda content=contents[name]: decoded(content)
            for name in ("webp, quality 90", "jpeg, quality 95")
        },
        **{
            f"metadata of {name}": lambda name=name: with_metadata(contents[name], files[name][0], _METADATA)
            for name in ("png", "webp, lossless", "jpeg, quality 95")
        },
        "sha256 of the pixels": lambda: hashlib.sha256(marked).hexdigest(),
        "sha256 of the png": lambda: hashlib.sha256(contents["png"]).hexdigest(),
    }


def _finishing(pixels: Pixels, folder: Path) -> Callable[[], object]:
    """As a worker does it: watermark, reading it back, PNG, metadata, both sha256, and the file in its store."""
    finisher = Finisher(ImageStore(str(folder)), FileMaker(_ENVIRONMENT, watermark=True, png_compress_level=QUICK_PNG))
    image = Unfinished(ClaimedJob(1, _SPEC.canonical, {"Category": "sea"}, 0), _SPEC, pixels, _PROVENANCE, 1.0)
    return lambda: finisher.finish(image)


def _stock(pixels: Pixels) -> Callable[[], object]:
    """diffusers' watermark, which the pipeline puts on what the VAE decoded, Pillow's PNG as it is by default, with the
    texts in it, and a sha256 of the file."""
    decoded_picture = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1
    marker, texts = StableDiffusionXLWatermarker(), PngInfo()
    texts.add_text("parameters", _METADATA.parameters)

    def finish() -> str:
        marked = marker.apply_watermark(decoded_picture)[0]
        rounded = ((marked / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        stream = io.BytesIO()
        Image.fromarray(rounded).save(stream, "png", pnginfo=texts)
        return hashlib.sha256(stream.getvalue()).hexdigest()

    return finish


def _measured(steps: dict[str, Callable[[], object]], rounds: int) -> dict[str, dict[str, float]]:
    found = {}
    print(f"{'step':32} {'ms':>8} {'longest wait':>13} {'all waits, ms':>14} {'kB':>7}")
    for name, step in steps.items():
        answer = step()
        milliseconds, (longest, together) = _milliseconds(step, rounds), _waits(step, rounds)
        size = f"{len(answer) / 1000:>7,.0f}" if isinstance(answer, bytes) else ""
        print(f"{name:32} {milliseconds:>8.1f} {longest:>13.1f} {together:>14.1f} {size}", flush=True)
        found[name] = {"ms": round(milliseconds, 2), "longest_wait": round(longest, 2), "waits": round(together, 2)}
    return found


def _files(side: int, rounds: int) -> dict[str, dict[str, float]]:
    """Of each kind of picture, with the watermark in it: its PNG, and beside it Pillow's of level 6."""
    found = {}
    print(f"\n{'picture':32} {'ms':>8} {'Pillow, ms':>11} {'kB':>7} {'Pillow, kB':>11} {'times':>6}")
    for name, picture in PICTURES.items():
        pixels = put_watermark(picture(side))
        ours, theirs = encoded(pixels, Output(), QUICK_PNG), encoded(pixels, Output(), 6)
        _check_reads_back(ours, pixels)
        ms = _milliseconds(lambda pixels=pixels: encoded(pixels, Output(), QUICK_PNG), rounds)
        pillow_ms = _milliseconds(lambda pixels=pixels: encoded(pixels, Output(), 6), 1)
        times = len(ours) / len(theirs)
        print(f"{name:32} {ms:>8.1f} {pillow_ms:>11.1f} {len(ours) / 1000:>7,.0f} {len(theirs) / 1000:>11,.0f}"
              f" {times:>6.3f}", flush=True)  # fmt: skip
        found[name] = {"ms": round(ms, 2), "pillow_ms": round(pillow_ms, 2), "to_pillow": round(times, 4)}
    return found


def _check_reads_back(content: bytes, pixels: Pixels) -> None:
    by_opencv = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)[:, :, ::-1]
    if not np.array_equal(decoded(content), pixels) or not np.array_equal(by_opencv, pixels):
        sys.exit("a file does not give back its pixels")


def _milliseconds(step: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        started = time.thread_time()
        step()
        times.append(time.thread_time() - started)
    return min(times) * 1000


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
