"""The denoising loop: one scheduler object from the first step to the last, whichever UNet predicts the noise.

A step may take several evaluations of the UNet (Heun looks ahead, PNDM begins with two), so a handoff falls between
whole steps only. The scheduler goes on over the seam with all that it remembers: a split run in which the second UNet
is the first one is the unsplit run, bit for bit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import diffusers
import torch
from diffusers import PNDMScheduler, SchedulerMixin, UNet2DConditionModel

from schemas.errors import LeaseLostError, SpecError
from schemas.spec import JobSpec
from worker.conditioning import Conditioning, base_conditioning, refiner_conditioning
from worker.pipelines import LoadedPair

Stop = Callable[[], bool]

#: Its noise is a path drawn from a seed, and not by a generator.
_DRAWS_FROM_SEEDS: Final = "DPMSolverSDEScheduler"
_PNDM_RUNGE_KUTTA_STEPS: Final = 3


@dataclass(frozen=True)
class Denoised:
    """Latents (images, 4, height / 8, width / 8), and how they came about."""

    latents: torch.Tensor
    #: whole steps that really ran
    base_steps: int
    refiner_steps: int
    #: where the refiner took over; None without one, or where the scheduler has no sigmas
    handoff_sigma: float | None


@dataclass(frozen=True)
class Stage:
    """One UNet and what it is told."""

    unet: UNet2DConditionModel
    conditioning: Conditioning


@dataclass(frozen=True)
class Sampler:
    """A scheduler on its way through the noise schedule. It remembers: evaluations go in order, each once."""

    scheduler: SchedulerMixin
    #: of ``scheduler.step``: the images' generators, where it draws noise with them
    step_options: dict[str, Any]
    guidance_scale: float
    stop: Stop

    def run(self, stage: Stage, latents: torch.Tensor, first: int, end: int) -> torch.Tensor:
        """The evaluations from ``first`` up to ``end``. ``stop`` is asked after each.

        Raises:
            LeaseLostError: ``stop`` answered yes.
        """
        for timestep in self.scheduler.timesteps[first:end]:
            noise = self._predicted_noise(stage, latents, timestep)
            latents = self.scheduler.step(noise, timestep, latents, **self.step_options, return_dict=False)[0]
            if self.stop():
                raise LeaseLostError("the pack was taken back while it was rendered")
        return latents

    def _predicted_noise(self, stage: Stage, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """Classifier-free guidance, https://arxiv.org/abs/2207.12598: negative + scale x (positive - negative)."""
        told = stage.conditioning
        inputs = torch.cat([latents, latents]) if told.is_guided else latents
        noise = stage.unet(
            self.scheduler.scale_model_input(inputs, timestep),
            timestep,
            encoder_hidden_states=told.hidden_states,
            added_cond_kwargs={"text_embeds": told.pooled, "time_ids": told.time_ids},
            return_dict=False,
        )[0]
        if not told.is_guided:
            return noise
        negative, positive = noise.chunk(2)
        return negative + self.guidance_scale * (positive - negative)


@torch.inference_mode()
def denoise(pair: LoadedPair, specs: Sequence[JobSpec], stop: Stop) -> Denoised:
    """Base, lossless handoff and refiner of one forward pass; or the base alone.

    Raises:
        LeaseLostError: ``stop`` answered yes.
        SpecError: the handoff leaves a side without a step.
    """
    spec = specs[0]
    pair.base.scheduler = scheduler = timed_scheduler(pair, specs)
    generators = [torch.Generator("cpu").manual_seed(spec.seed) for spec in specs]
    sampler = Sampler(scheduler, pair.base.prepare_extra_step_kwargs(generators, 0.0), spec.guidance_scale, stop)
    latents = _noise(pair, spec, generators)
    starts, num_evaluations = step_starts(scheduler), len(scheduler.timesteps)
    base = Stage(pair.base.unet, base_conditioning(pair.base, specs))
    if spec.refiner.mode == "off":
        return Denoised(sampler.run(base, latents, 0, num_evaluations), len(starts), 0, None)
    num_base_steps = handoff_step(scheduler, spec)
    seam = starts[num_base_steps]
    latents = sampler.run(base, latents, 0, seam)
    refiner = Stage(pair.refiner.unet, refiner_conditioning(pair.refiner, specs))
    latents = sampler.run(refiner, latents, seam, num_evaluations)
    return Denoised(latents, num_base_steps, len(starts) - num_base_steps, sigma(scheduler, seam))


def new_scheduler(pair: LoadedPair, specs: Sequence[JobSpec]) -> SchedulerMixin:
    """The scheduler of a forward pass, from the base's configuration and the specs' options."""
    name = specs[0].scheduler
    options = dict(specs[0].scheduler_options)
    if name == _DRAWS_FROM_SEEDS:
        options["noise_sampler_seed"] = [spec.seed for spec in specs]
    if name == "DPMSolverSinglestepScheduler" and _last_sigma(pair, options) == "zero":
        options["lower_order_final"] = True  # diffusers switches it on itself, and warns in each pass
    return getattr(diffusers, name).from_config(pair.scheduler_config, **options)


def _last_sigma(pair: LoadedPair, options: dict[str, Any]) -> str:
    return options.get("final_sigmas_type") or pair.scheduler_config.get("final_sigmas_type", "zero")


def timed_scheduler(pair: LoadedPair, specs: Sequence[JobSpec], first: int = 0) -> SchedulerMixin:
    """``new_scheduler`` with its timesteps, before the evaluation ``first``."""
    scheduler = new_scheduler(pair, specs)
    scheduler.set_timesteps(specs[0].num_inference_steps, device=pair.device)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    return scheduler


def step_starts(scheduler: SchedulerMixin) -> list[int]:
    """For each whole step, the evaluation (an index of ``timesteps``) that it begins with."""
    num_evaluations = len(scheduler.timesteps)
    if isinstance(scheduler, PNDMScheduler):
        return _pndm_step_starts(scheduler, num_evaluations)
    return list(range(0, num_evaluations, scheduler.order))


def _pndm_step_starts(scheduler: PNDMScheduler, num_evaluations: int) -> list[int]:
    """Either the first step takes two evaluations, or the first three take four each (Runge-Kutta)."""
    if scheduler.config.skip_prk_steps:
        return [0, *range(2, num_evaluations)]
    num_first = 4 * _PNDM_RUNGE_KUTTA_STEPS
    return [*range(0, num_first, 4), *range(num_first, num_evaluations)]


def handoff_step(scheduler: SchedulerMixin, spec: JobSpec) -> int:
    """How many whole steps the base runs.

    ``start`` is read as diffusers reads ``denoising_end``: a step is the base's while its timestep is not below the
    cutoff.

    Raises:
        SpecError: base or refiner would have no step.
    """
    starts = step_starts(scheduler)
    num_base_steps = spec.refiner.num_base_steps(spec.num_inference_steps)
    if num_base_steps is None:
        num_train = scheduler.config.num_train_timesteps
        cutoff = round(num_train - spec.refiner.start * num_train)
        num_base_steps = sum(timestep >= cutoff for timestep in scheduler.timesteps[starts].tolist())
    check_both_have_steps(spec, num_base_steps, len(starts) - num_base_steps)
    return num_base_steps


def check_both_have_steps(spec: JobSpec, base_steps: int, refiner_steps: int) -> None:
    """Raises SpecError where one of them has none."""
    if base_steps < 1 or refiner_steps < 1:
        raise SpecError(
            f"refiner.start: {spec.refiner.start} of {spec.num_inference_steps} steps leaves"
            f" {base_steps} to the base and {refiner_steps} to the refiner; each needs one"
        )


def sigma(scheduler: SchedulerMixin, evaluation: int) -> float | None:
    """The noise level before an evaluation; None where the scheduler has no sigmas."""
    return scheduler.sigmas[evaluation].item() if hasattr(scheduler, "sigmas") else None


def _noise(pair: LoadedPair, spec: JobSpec, generators: list[torch.Generator]) -> torch.Tensor:
    """What the first step starts from: each image's noise from its own generator, scaled as the scheduler wants it."""
    channels = pair.base.unet.config.in_channels
    return pair.base.prepare_latents(
        len(generators), channels, spec.height, spec.width, pair.dtype, pair.device, generators
    )
