"""Renders one forward pass: embed, base, handoff, refiner, decode, uint8. The diffusers pipelines do the denoising."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import diffusers
import numpy as np
import torch
from diffusers import AutoencoderKL, SchedulerMixin

from schemas.errors import DeviceLostError, DeviceMemoryError, LeaseLostError, RenderError, SpecError
from schemas.spec import JobSpec
from worker.embedding import SdxlPipeline, embed, num_chunks, stacked
from worker.forward_passes import pass_key
from worker.pipelines import LoadedPair

#: What libraries beside PyTorch's own allocator call a device error: their errors are plain RuntimeErrors.
_DEVICE_SENTENCES: Final = ("CUDA error", "cuDNN error", "CUDNN_STATUS", "CUBLAS_STATUS")


@dataclass(frozen=True)
class Denoised:
    """Latents (images, 4, height / 8, width / 8), and how they came about."""

    latents: torch.Tensor
    #: steps that really ran
    base_steps: int
    refiner_steps: int
    #: where the refiner took over; None without one, or where the scheduler has no sigmas
    handoff_sigma: float | None


@dataclass(frozen=True)
class RenderedPass:
    """What came out of one forward pass."""

    #: (height, width, 3) uint8 in the order of the specs; None where the picture has NaN or infinite values
    images: list[np.ndarray | None]
    #: see ``Denoised``
    base_steps: int
    refiner_steps: int
    handoff_sigma: float | None


def render(pair: LoadedPair, specs: Sequence[JobSpec], stop: Callable[[], bool] = lambda: False) -> RenderedPass:
    """Renders the specs of one forward pass. ``stop`` is asked after every step.

    Raises:
        ValueError: the specs cannot share a forward pass (``worker.forward_passes.split`` makes those that can).
        SpecError: a spec wants a refiner that the pair does not have.
        LeaseLostError: ``stop`` answered yes.
        DeviceMemoryError: the device's memory does not hold the pass; nothing of it is held any longer.
        DeviceLostError: the device failed for good: this process can render nothing more.
    """
    _check(pair, specs)
    try:
        denoised = denoise(pair, specs, stop)
        images = _images(pair, denoised.latents)
        return RenderedPass(images, denoised.base_steps, denoised.refiner_steps, denoised.handoff_sigma)
    except torch.OutOfMemoryError:
        failure: RenderError = DeviceMemoryError(f"{pair.device} has no memory for a pass of {len(specs)} images")
    except RuntimeError as error:
        if not _is_device_error(error):
            raise
        failure = DeviceLostError(f"{pair.device} failed: {str(error).splitlines()[0]}")
    # here and not above: until an except block ends, its traceback holds the tensors of every frame
    if isinstance(failure, DeviceMemoryError) and pair.device.type == "cuda":
        torch.cuda.empty_cache()
    raise failure


def _check(pair: LoadedPair, specs: Sequence[JobSpec]) -> None:
    keys = {pass_key(spec, num_chunks(pair, spec)) for spec in specs}
    if len(keys) != 1:
        raise ValueError(f"a forward pass takes specs of one kind, not of {len(keys)}")
    if specs[0].refiner.mode != "off" and pair.refiner is None:
        raise SpecError(f'refiner.mode: pair {pair.pair.name!r} has no refiner, so only "off" can be rendered')


def _is_device_error(error: RuntimeError) -> bool:
    return isinstance(error, torch.AcceleratorError) or any(text in str(error) for text in _DEVICE_SENTENCES)


@dataclass
class _Steps:
    """Counts a pipeline's steps, and ends it where the pack is somebody else's by now."""

    stop: Callable[[], bool]
    done: int = field(default=0, init=False)

    def __call__(
        self, pipe: SdxlPipeline, step: int, timestep: torch.Tensor, tensors: dict[str, Any]
    ) -> dict[str, Any]:
        self.done += 1
        if self.stop():
            raise LeaseLostError("the pack was taken back while it was rendered")
        return {}


@dataclass(frozen=True)
class _Run:
    """What base and refiner have in common in one forward pass."""

    specs: Sequence[JobSpec]
    scheduler: SchedulerMixin
    #: one for each image; the refiner goes on drawing where the base stopped
    generators: list[torch.Generator]


@torch.inference_mode()
def denoise(pair: LoadedPair, specs: Sequence[JobSpec], stop: Callable[[], bool]) -> Denoised:
    """Base, handoff and refiner of one forward pass."""
    run = _Run(
        specs=specs,
        scheduler=getattr(diffusers, specs[0].scheduler).from_config(pair.scheduler_config),
        generators=[torch.Generator("cpu").manual_seed(spec.seed) for spec in specs],
    )
    base_steps, refiner_steps = _Steps(stop), _Steps(stop)
    latents = _denoise(run, pair.base, callback_on_step_end=base_steps, **_base_options(specs[0]))
    if specs[0].refiner.mode == "off":
        return Denoised(latents, base_steps.done, 0, None)
    options = _refiner_options(specs[0], latents)
    latents = _denoise(run, pair.refiner, callback_on_step_end=refiner_steps, **options)
    if not (base_steps.done and refiner_steps.done):
        raise SpecError(
            f"refiner.start: {specs[0].refiner.start:g} of {specs[0].num_inference_steps} steps leaves"
            f" {base_steps.done} to the base and {refiner_steps.done} to the refiner; each needs one"
        )
    return Denoised(latents, base_steps.done, refiner_steps.done, _sigma(run.scheduler, base_steps.done))


def _base_options(spec: JobSpec) -> dict[str, Any]:
    denoising_end = None if spec.refiner.mode == "off" else spec.refiner.start
    return {"height": spec.height, "width": spec.width, "denoising_end": denoising_end}


def _refiner_options(spec: JobSpec, latents: torch.Tensor) -> dict[str, Any]:
    return {
        "image": latents,
        "denoising_start": spec.refiner.start,
        "aesthetic_score": spec.refiner.aesthetic_score,
        "negative_aesthetic_score": spec.refiner.negative_aesthetic_score,
    }


def _denoise(run: _Run, pipe: SdxlPipeline, **options: Any) -> torch.Tensor:
    pipe.scheduler = run.scheduler
    return pipe(
        num_inference_steps=run.specs[0].num_inference_steps,
        guidance_scale=run.specs[0].guidance_scale,
        generator=run.generators,
        output_type="latent",
        **stacked([embed(pipe, spec) for spec in run.specs]),
        **options,
    ).images


def _sigma(scheduler: SchedulerMixin, index: int) -> float | None:
    return scheduler.sigmas[index].item() if hasattr(scheduler, "sigmas") else None


@torch.inference_mode()
def _images(pair: LoadedPair, latents: torch.Tensor) -> list[np.ndarray | None]:
    decoded = _decoded(pair.base.vae, latents)
    finite = decoded.isfinite().flatten(start_dim=1).all(dim=1).tolist()
    pixels = ((decoded * 0.5 + 0.5).clamp(0, 1).float() * 255).round().to(torch.uint8)
    arrays = pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return [array if is_finite else None for array, is_finite in zip(arrays, finite, strict=True)]


def _decoded(vae: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
    """What the pipelines do after their last step; they would clamp infinite values, so that nobody saw them."""
    upcast = vae.dtype == torch.float16 and vae.config.force_upcast
    try:
        if upcast:
            vae.to(torch.float32)
        return vae.decode(_unscaled(vae, latents.to(vae.dtype)), return_dict=False)[0]
    finally:
        if upcast:
            vae.to(torch.float16)  # the next pass expects it so, even after this one ran out of memory


def _unscaled(vae: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
    if vae.config.latents_mean is None or vae.config.latents_std is None:
        return latents / vae.config.scaling_factor
    mean, std = (
        torch.tensor(values).view(1, 4, 1, 1).to(latents.device, latents.dtype)
        for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    return latents * std / vae.config.scaling_factor + mean
