"""Measures what a loaded pair renders, for one set of device options after the other, on copies of its networks."""

import copy
import gc
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from math import nan
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch._inductor.config

from benchmarks.figures import Figures
from benchmarks.option_rows import SCRIPT, Row
from benchmarks.plain_diffusers import PlainDiffusers
from farm.image_store import ImageStore
from schemas.device_options import DeviceOptions
from schemas.provenance import Provenance
from schemas.records import ClaimedJob
from schemas.spec import JobSpec
from worker.compiled.compiling import keep_compiled_code
from worker.environment import environment
from worker.image_files.finishing import FileMaker, Finisher, Unfinished
from worker.loading.attention import attention_choice, attention_shape
from worker.loading.device_options import apply_to_unet, apply_to_vae, require_options
from worker.loading.pipelines import LoadedPair
from worker.passes.decoding import checked_pictures
from worker.passes.rendering import RenderedPass, render

#: of the matrix product whose rate is measured
_SIDE = {"cuda": 8192, "cpu": 1024}
_FEW, _MANY = 4, 12
#: base steps and refiner steps of whole runs, which the figures are named after
_ALONE, _REFINED = (20, 0), (32, 8)
_END_TO_END_PASSES = 2
#: the fewest steps of which the last fifth, at which the script hands over, is a whole one
_AT_A_FIFTH = 4, 1
#: with fp8 it tells all of a process how to compile; what comes after is to be compiled as it is without
_TOLD_BY_TORCHAO = {"coordinate_descent_tuning": False, "coordinate_descent_check_all_directions": False}


Images = list[np.ndarray]


class Sizes(NamedTuple):
    side: int
    pass_size: int


class Bench:
    """``pair``: loaded without options, and left as it is."""

    def __init__(self, pair: LoadedPair, sizes: Sizes) -> None:
        self._pair = pair
        self._sizes = sizes
        self._exact: dict[int, Images] = {}
        keep_compiled_code(Path(tempfile.gettempdir()) / "nightshift-bench-compiled")

    def matmul_rate(self) -> float:
        """FLOP/s of a large product in the pair's dtype: random numbers, for zeros are faster."""
        side = _SIDE[self._pair.device.type]
        left, right = (torch.randn(side, side, device=self._pair.device, dtype=self._pair.dtype) for _ in range(2))
        for _ in range(3):
            left @ right
        started = self._now()
        for _ in range(10):
            left @ right
        return 10 * 2 * side**3 / (self._now() - started)

    def refusal(self, row: Row) -> str:
        """Why the device cannot do what a row's options ask for; empty where it can."""
        options = DeviceOptions(**row.options)
        try:
            require_options(options, self._pair.device)
            attention_choice(options.attention, attention_shape(self._pair.base.unet))
        except ValueError as error:
            return str(error)
        return ""

    def measured(self, row: Row) -> Figures:
        """Raises what PyTorch raises, and RuntimeError where a picture is broken or not there."""
        if row is SCRIPT:
            return self._script()
        with torch._inductor.config.patch(_TOLD_BY_TORCHAO):
            return self._with_options(row)

    def _script(self) -> Figures:
        """One image after the other; the first of them is held against ours."""
        script = PlainDiffusers(self._pair)
        self._reset_peak()
        first = self._spec(0, *_AT_A_FIFTH)
        theirs = script.picture(first)
        with_refiner = self._seconds(partial(script.picture, self._spec(1, *_REFINED)))
        alone = self._seconds(partial(script.picture, self._spec(2, *_ALONE)))
        peak_gb = self._peak_gb([self._pair.base.vae])
        difference = _difference([theirs], self._render(self._pair, [first]).images)
        return Figures(1 / alone, 1 / with_refiner, peak_gb=peak_gb, difference=difference)

    def _with_options(self, row: Row) -> Figures:
        size = row.pass_size or self._sizes.pass_size
        options = DeviceOptions(**row.options)
        exact = self._exact_images(size)
        pair = self._with(options)
        self._reset_peak()
        try:
            warm_up = self._seconds(partial(self._render, pair, self._specs(size, 1, 1)))
            difference = _difference(self._images(pair, size), exact)
            figures = self._end_to_end(pair, size) if row.end_to_end else self._by_steps(pair, size)
            peak_gb = self._peak_gb(self._copied)
            return replace(figures, warm_up_s=warm_up, peak_gb=peak_gb, difference=difference)
        finally:
            del pair
            self._forget(options)

    @property
    def _copied(self) -> list[torch.nn.Module]:
        """Of which a row has copies."""
        return [self._pair.base.unet, self._pair.refiner.unet, self._pair.base.vae]

    def _by_steps(self, pair: LoadedPair, size: int) -> Figures:
        """Passes of few and of many steps: what they differ by is steps, what they share is the rest. nan where what
        else a machine does took longer than the steps."""
        kinds = (_FEW, 0), (_MANY, 0), (_FEW, _MANY - _FEW)
        passes = [partial(self._render, pair, self._specs(size, *steps)) for steps in kinds]
        few, many, refined = map(self._seconds, passes)
        more = _MANY - _FEW
        base_step, refiner_step = ((longer - few) / more if longer > few else nan for longer in (many, refined))
        rest = max(few - _FEW * base_step, 0.0)
        decoding = self._decoding_seconds(pair, size)
        whole = rest + 32 * base_step + 8 * refiner_step
        return Figures(
            images_per_s_20=size / (rest + 20 * base_step),
            images_per_s_40=size / whole,
            base_step_ms=base_step * 1e3,
            refiner_step_ms=refiner_step * 1e3,
            denoising=(32 * base_step + 8 * refiner_step) / whole,
            decoding=decoding / whole,
        )

    def _end_to_end(self, pair: LoadedPair, size: int) -> Figures:
        """Whole passes, finished beside the next one: watermark, PNG, metadata, sha256, a file that is synced."""
        maker = FileMaker(environment(pair), watermark=True, png_compress_level=1)
        with tempfile.TemporaryDirectory(prefix="nightshift-bench-") as folder:
            finisher = Finisher(ImageStore(Path(folder).as_uri()), maker)
            alone, _ = self._finished_passes(pair, finisher, (size, *_ALONE))
            seconds, rendering = self._finished_passes(pair, finisher, (size, *_REFINED))
            _require_files(Path(folder), 2 * _END_TO_END_PASSES * size)
        num_images = size * _END_TO_END_PASSES
        decoding = self._decoding_seconds(pair, size) * _END_TO_END_PASSES
        return Figures(
            images_per_s_20=num_images / alone,
            images_per_s_40=num_images / seconds,
            denoising=(rendering - decoding) / seconds,
            decoding=decoding / seconds,
            waiting=1 - rendering / seconds,
        )

    def _finished_passes(self, pair: LoadedPair, finisher: Finisher, kind: tuple[int, int, int]) -> tuple[float, float]:
        """``kind``: images, base steps, refiner steps. Seconds until the last file is there; of them, rendering."""
        started, rendering = self._now(), 0.0
        with ThreadPoolExecutor(2) as finishers:
            files = []
            for number in range(_END_TO_END_PASSES):
                specs, begun = self._specs(*kind, first=kind[0] * number), time.monotonic()
                rendered = self._render(pair, specs)
                rendering += self._now() - begun
                files += [finishers.submit(_finished, finisher, *one) for one in _unfinished(rendered, specs)]
            for file in files:
                file.result()
        return time.monotonic() - started, rendering

    def _decoding_seconds(self, pair: LoadedPair, size: int) -> float:
        side = self._sizes.side // 8
        latents = torch.randn(size, 4, side, side, device=pair.device, dtype=pair.dtype)
        with pair.attention.in_force():
            checked_pictures(pair.base.vae, latents[:1])
            started = self._now()
            checked_pictures(pair.base.vae, latents)
            return self._now() - started

    def _exact_images(self, size: int) -> Images:
        if size not in self._exact:
            self._exact[size] = self._images(self._pair, size)
        return self._exact[size]

    def _images(self, pair: LoadedPair, size: int) -> Images:
        """Of a short run: what options move grows with the steps, and an error shows at once."""
        return self._render(pair, self._specs(size, _FEW, _FEW)).images

    def _seconds(self, work: Callable[[], object]) -> float:
        started = self._now()
        work()
        return self._now() - started

    def _render(self, pair: LoadedPair, specs: list[JobSpec]) -> RenderedPass:
        """What is broken must not count as rendered."""
        rendered = render(pair, specs, compile_mode=pair.pair.options.compile)
        if faults := [picture.fault for picture in rendered.pictures if picture.fault]:
            raise RuntimeError(f"{len(faults)} of {len(specs)} pictures are broken: {faults[0]}")
        return rendered

    def _with(self, options: DeviceOptions) -> LoadedPair:
        """The pair with copies of its networks, to which the options are applied."""
        pair = self._pair
        base, refiner = copy.copy(pair.base), copy.copy(pair.refiner)
        base.unet, refiner.unet = copy.deepcopy(pair.base.unet), copy.deepcopy(pair.refiner.unet)
        base.vae = refiner.vae = copy.deepcopy(pair.base.vae)
        choice = attention_choice(options.attention, attention_shape(base.unet))
        apply_to_vae(base.vae, options)
        for unet in (base.unet, refiner.unet):
            apply_to_unet(unet, options)
        description = pair.pair.model_copy(update={"options": options})
        return replace(pair, pair=description, base=base, refiner=refiner, attention=choice)

    def _specs(self, size: int, base_steps: int, refiner_steps: int, first: int = 0) -> list[JobSpec]:
        return [self._spec(first + number, base_steps, refiner_steps) for number in range(size)]

    def _spec(self, seed: int, base_steps: int, refiner_steps: int) -> JobSpec:
        refiner = {"start_step": base_steps} if refiner_steps else {"mode": "off"}
        fields = {"width": self._sizes.side, "height": self._sizes.side, "refiner": refiner}
        fields["num_inference_steps"] = base_steps + refiner_steps
        return JobSpec.parse({"prompt": f"a lighthouse in storm number {seed}", "seed": seed, **fields})

    def _now(self) -> float:
        if self._pair.device.type == "cuda":
            torch.cuda.synchronize()
        return time.monotonic()

    def _peak_gb(self, beside: list[torch.nn.Module]) -> float:
        """Without the networks that stand beside their copies: a worker has one of each."""
        if self._pair.device.type != "cuda":
            return nan
        return (torch.cuda.max_memory_allocated() - sum(map(_size_bytes, beside))) / 1e9

    def _reset_peak(self) -> None:
        gc.collect()
        if self._pair.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def _forget(self, options: DeviceOptions) -> None:
        """The copies, and the code that was made for them."""
        if options.compile != "off":
            torch.compiler.reset()
        gc.collect()
        if self._pair.device.type == "cuda":
            torch.cuda.empty_cache()


def _unfinished(rendered: RenderedPass, specs: list[JobSpec]) -> list[tuple[Any, JobSpec, Provenance]]:
    """The pictures themselves: whoever asks one for its pixels may have to wait for them."""
    ran = {"base_steps": rendered.base_steps, "refiner_steps": rendered.refiner_steps}
    record = Provenance(
        handoff="lossless", forward_pass_size=len(specs), handoff_sigma=rendered.handoff_sigma, prompt_chunks=1,
        refiner_prompt_chunks=1, watermark_bits=None, compile_mode=rendered.compile_mode, **ran,
    )  # fmt: skip
    return [(picture, spec, record) for picture, spec in zip(rendered.pictures, specs, strict=True)]


def _difference(images: Images, exact: Images) -> float:
    """Mean of 8-bit values."""
    return float(np.mean([np.abs(one.astype(int) - other).mean() for one, other in zip(images, exact, strict=True)]))


def _size_bytes(network: torch.nn.Module) -> int:
    return sum(tensor.nbytes for tensor in [*network.parameters(), *network.buffers()])


def _require_files(folder: Path, num_images: int) -> None:
    found = sum(1 for path in folder.rglob("*") if path.is_file())
    if found != num_images:
        raise RuntimeError(f"{found} files of {num_images} images were stored")


def _finished(finisher: Finisher, picture: Any, spec: JobSpec, record: Provenance) -> None:
    job = ClaimedJob(spec.seed, spec.model_dump_json(), {}, 0, False)
    finisher.finish(Unfinished(job, spec, picture.pixels, record, 0.0))
