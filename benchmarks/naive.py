"""The script that SDXL's documentation shows beside Nightshift: same prompts, seeds and pair, in turns.

The script calls base and refiner for one prompt after the other and saves each picture by Pillow. Nightshift is the
real `nightshift render`, with everything that it does to a picture. Rendering is timed without loading in both: the
script from its first call to its last saved file, Nightshift from the first pack's claim to the last result, by the
ledger's clock. What each took from the start of its command to its end, loading included, stands beside it.

Every picture of Nightshift is held against the script's, and some are rendered again (`nightshift reproduce`).
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy
from PIL import Image as Pillow
from sqlalchemy import func, select

from benchmarks import render_command
from benchmarks.record import append
from farm.database import Database
from schemas.tables import Image, Job, Pack, Result

#: Mean difference of two pictures of one prompt, in levels of 0 to 255, by the dtype that denoises. In float32, of
#: pictures too small for a watermark, it is 0.00: the pass size moves latents by 5e-5, and in 16 bits by more.
#: Diffusers puts the watermark on before rounding, Nightshift afterwards.
_TOLERANCES = {"float32": 1.0, "float16": 3.0}
_SPIN = {"GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "10000")}  # as worker processes have it


def main() -> None:
    options = _options()
    if options.script:
        _script(options)
        return
    rounds = []
    print("round  images  script/s  nightshift/s  ratio   whole     CPU   apart")
    for number in range(1, options.rounds + 1):
        with tempfile.TemporaryDirectory(prefix="nightshift-bench-") as folder:
            rounds.append(_round(options, Path(folder), is_last=number == options.rounds))
        one = rounds[-1]
        print(f"{number:>5} {options.limit:>7} {one['script_per_s']:>9.3f} {one['nightshift_per_s']:>13.3f}"
              f" {one['ratio']:>6.2f} {one['whole_ratio']:>7.2f} {one['cpu_ratio']:>7.2f} {one['apart']:>7.3f}",
              flush=True)  # fmt: skip
    ratios = [one["ratio"] for one in rounds]
    print(f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    chosen = {name: getattr(options, name) for name in ("pair", "side", "steps", "limit", "pass_size")}
    append("naive", options.record, {**chosen, "ratio_median": round(statistics.median(ratios), 4), "rounds": rounds})
    sys.exit(0 if statistics.median(ratios) >= options.goal else 1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    render_command.add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--reproduced", type=int, default=2, help="images of the last round that are rendered again")
    parser.add_argument("--goal", type=float, default=0.0, help="on a GPU: 2; on a CPU there is none")
    parser.add_argument("--script", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _round(options: argparse.Namespace, folder: Path, *, is_last: bool) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.naive", *sys.argv[1:], "--script", str(folder / "script")]
    script_seconds, script = _timed(command, os.environ)
    environment = render_command.environment(options, folder)
    whole_seconds, ours = _timed(render_command.command(options), environment)
    told = json.loads(script.output.splitlines()[-1])
    rendering = told["seconds"]
    database = Database(render_command.database_url(folder))
    try:
        ours_rendering, pictures = _rendered(database)
    finally:
        database.close()
    apart = _differences(pictures, folder / "script", _TOLERANCES[told["dtype"]])
    if is_last:
        _require_reproduced(options.reproduced, environment)
    return {
        "script_per_s": options.limit / rendering,
        "nightshift_per_s": options.limit / ours_rendering,
        "ratio": rendering / ours_rendering,
        "whole_ratio": script_seconds / whole_seconds,
        "cpu_ratio": script.cpu_seconds / ours.cpu_seconds,
        "apart": apart,
    }


class _Ended:
    def __init__(self, output: str, cpu_seconds: float) -> None:
        self.output = output
        self.cpu_seconds = cpu_seconds


def _timed(command: Sequence[str], environment: Mapping[str, str]) -> tuple[float, _Ended]:
    """Seconds by the clock of a command that must succeed; its output, and the processors' time of its whole tree."""
    began, used = time.perf_counter(), _cpu_seconds()
    done = subprocess.run(command, env={**environment, **_SPIN}, check=True, stdout=subprocess.PIPE, text=True)
    return time.perf_counter() - began, _Ended(done.stdout, _cpu_seconds() - used)


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _rendered(database: Database) -> tuple[float, dict[int, Path]]:
    """Seconds from the first claim to the last result; number of each job → its picture."""
    with database.begin(read_only=True) as tx:
        began = tx.execute(select(func.min(Pack.claimed_at))).scalar_one()
        ended = tx.execute(select(func.max(Result.finished_at))).scalar_one()
        rows = tx.execute(select(Job.number, Image.uri).join(Result, Result.job_id == Job.id).join(Image)).all()
    return (ended - began).total_seconds(), {row.number: Path(row.uri.removeprefix("file://")) for row in rows}


def _differences(pictures: Mapping[int, Path], script: Path, tolerance: float) -> float:
    """The largest mean difference, in levels, of a picture and the script's; fails where one is another picture."""
    theirs = sorted(script.iterdir())
    assert len(theirs) == len(pictures), f"{len(pictures)} pictures, and {len(theirs)} of the script"
    pairs = list(zip((pictures[number] for number in sorted(pictures)), theirs, strict=True))
    apart = max(_apart(ours, other) for ours, other in pairs)
    crossed = min(_apart(ours, other) for (ours, _), (_, other) in pairwise(pairs))
    assert apart < tolerance < crossed, (
        f"pictures differ by {apart:.3f} levels; others than they should, by {crossed:.3f}"
    )
    return apart


def _apart(one: Path, other: Path) -> float:
    levels = [numpy.asarray(Pillow.open(path).convert("RGB"), dtype=numpy.float32) for path in (one, other)]
    return float(numpy.abs(levels[0] - levels[1]).mean())


def _require_reproduced(num_images: int, environment: Mapping[str, str]) -> None:
    """Nightshift's own exact renderer makes the same pixels again. Not timed."""
    jobs = [f"1/{number}" for number in range(1, num_images + 1)]
    if jobs:
        subprocess.run([sys.executable, "-m", "nightshift", "reproduce", *jobs, "--json"],
                       env={**environment, **_SPIN}, check=True, stdout=subprocess.DEVNULL)  # fmt: skip


def _script(options: argparse.Namespace) -> None:
    """As in "Stable Diffusion XL" of diffusers' documentation, "base + refiner model"."""
    import diffusers.utils.logging
    import torch
    import transformers.utils.logging
    from diffusers import DiffusionPipeline

    from schemas.settings import load_settings
    from worker.loading.model_files import locate_model

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    settings, specs = load_settings(), render_command.specs(options)
    pair = settings.model_pair(options.pair)
    where = [locate_model(source, part, settings.home / "cache") for source, part in
             ((pair.base, "base"), (pair.refiner, "refiner"))]  # fmt: skip
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.float16 if device == "cuda" else torch.float32
    base = DiffusionPipeline.from_pretrained(where[0].folder, dtype=dtype, variant=where[0].variant).to(device)
    shared = {"text_encoder_2": base.text_encoder_2, "vae": base.vae}
    refiner = DiffusionPipeline.from_pretrained(where[1].folder, dtype=dtype, variant=where[1].variant, **shared)
    refiner.to(device)
    for pipeline in (base, refiner):
        pipeline.set_progress_bar_config(disable=True)
    options.script.mkdir()
    began = time.perf_counter()
    for number, spec in enumerate(specs):
        common = {"prompt": spec.prompt, "num_inference_steps": spec.num_inference_steps}
        generator = torch.Generator("cpu").manual_seed(spec.seed)
        size = {"height": spec.height, "width": spec.width}
        latents = base(**common, **size, denoising_end=0.8, output_type="latent", generator=generator).images
        image = refiner(**common, denoising_start=0.8, image=latents, generator=generator).images[0]
        image.save(options.script / f"{number:06}.png")
    print(json.dumps({"seconds": time.perf_counter() - began, "dtype": str(dtype).removeprefix("torch.")}))


if __name__ == "__main__":
    main()
