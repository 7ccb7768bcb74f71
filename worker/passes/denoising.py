"""The denoising loop: one scheduler object from the first step to the last, whichever UNet predicts the noise.

The scheduler goes on over the seam between base and refiner with all that it remembers: a split run in which the second
UNet is the first one is the unsplit run, bit for bit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import rescale_noise_cfg
from diffusers.utils.torch_utils import randn_tensor

from schemas.combinations import num_image_to_image_steps, refiner_guidance
from schemas.errors import LeaseLostError
from schemas.spec import JobSpec
from worker.loading.pipelines import LoadedPair
from worker.passes.conditioning import Conditioning, base_conditioning, refiner_conditioning
from worker.passes.init_latents import encoded
from worker.passes.inputs import NO_INPUTS, PassInputs
from worker.passes.noise_schedule import NoiseSchedule, handoff_step, noise_schedule

Stop = Callable[[], bool]


@dataclass(frozen=True)
class Denoised:
    """Latents (images, 4, height / 8, width / 8), and how they came about."""

    latents: torch.Tensor
    #: whole steps that really ran
    base_steps: int
    refiner_steps: int
    #: the noise level that the refiner began at; None without one
    handoff_sigma: float | None


@dataclass(frozen=True)
class Stage:
    """One UNet and what it is told."""

    unet: UNet2DConditionModel
    conditioning: Conditioning
    guidance_scale: float
    guidance_rescale: float = 0.0

    def guided(self, noise: torch.Tensor) -> torch.Tensor:
        """Classifier-free guidance, https://arxiv.org/abs/2207.12598: negative + scale x (positive - negative).

        ``noise``: (n, ...), with guidance (2n, ...). Returns (n, ...).
        """
        if not self.conditioning.is_guided:
            return noise
        negative, positive = noise.chunk(2)
        mixed = negative + self.guidance_scale * (positive - negative)
        if not self.guidance_rescale:
            return mixed
        return rescale_noise_cfg(mixed, positive, guidance_rescale=self.guidance_rescale)


@dataclass(frozen=True)
class Sampler:
    """A noise schedule on its way. Its scheduler remembers: evaluations go in order, each once."""

    schedule: NoiseSchedule
    #: of ``scheduler.step``: the images' generators, where it draws noise with them
    step_options: dict[str, Any]
    stop: Stop

    def run(self, stage: Stage, latents: torch.Tensor, first_step: int, end_step: int) -> torch.Tensor:
        """The whole steps from the first up to the end. ``stop`` is asked after each evaluation.

        Raises:
            LeaseLostError: ``stop`` answered yes.
        """
        starts = [*self.schedule.starts, len(self.schedule.timesteps)]
        scheduler, evaluations = self.schedule.scheduler, slice(starts[first_step], starts[end_step])
        both = zip(self.schedule.timesteps[evaluations], self.schedule.timesteps_on_host[evaluations], strict=True)
        for timestep, on_host in both:
            noise = self._predicted_noise(stage, latents, timestep)
            latents = scheduler.step(noise, on_host, latents, **self.step_options, return_dict=False)[0]
            if self.stop():
                raise LeaseLostError("the pack was taken back while it was rendered")
        return latents

    def _predicted_noise(self, stage: Stage, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        told = stage.conditioning
        inputs = torch.cat([latents, latents]) if told.is_guided else latents
        noise = stage.unet(
            self.schedule.scheduler.scale_model_input(inputs, timestep),
            timestep,
            encoder_hidden_states=told.hidden_states,
            added_cond_kwargs={"text_embeds": told.pooled, "time_ids": told.time_ids},
            return_dict=False,
        )[0]
        return stage.guided(noise)


@torch.inference_mode()
def denoise(pair: LoadedPair, specs: Sequence[JobSpec], stop: Stop, inputs: PassInputs = NO_INPUTS) -> Denoised:
    """Base, handoff and refiner of one forward pass, or those of them that its ``refiner.mode`` has.

    Raises:
        LeaseLostError: ``stop`` answered yes.
        SpecError: the handoff leaves a side without a step.
    """
    run = _Run(pair, specs, [torch.Generator("cpu").manual_seed(spec.seed) for spec in specs], stop)
    match specs[0].refiner.mode:
        case "only":
            return run.refined(run.encoded(inputs), base_steps=0)
        case "img2img":
            base = run.base(inputs)
            return run.refined(base.latents, base.base_steps)
        case "off":
            return run.base(inputs)
        case "ensemble":
            return run.ensemble(inputs)


@dataclass(frozen=True)
class _Run:
    """One forward pass on its way. Each image draws from its own generator, in the order that diffusers draws in."""

    pair: LoadedPair
    specs: Sequence[JobSpec]
    generators: list[torch.Generator]
    stop: Stop

    def base(self, inputs: PassInputs) -> Denoised:
        sampler, latents = self._begun(inputs)
        num_steps = len(sampler.schedule.starts)
        return Denoised(sampler.run(self._base_stage(), latents, 0, num_steps), num_steps, 0, None)

    def ensemble(self, inputs: PassInputs) -> Denoised:
        sampler, latents = self._begun(inputs)
        num_steps, seam = len(sampler.schedule.starts), handoff_step(sampler.schedule, self.specs[0])
        # both are told before the first step: at the seam the device would wait for the tokenizers
        base, refiner = self._base_stage(), self._refiner_stage()
        latents = sampler.run(base, latents, 0, seam)
        latents = sampler.run(refiner, latents, seam, num_steps)
        return Denoised(latents, seam, num_steps - seam, sampler.schedule.sigma(seam))

    def refined(self, latents: torch.Tensor, base_steps: int) -> Denoised:
        """Finished latents, noised and denoised again by the refiner: SDEdit, https://arxiv.org/abs/2108.01073."""
        sampler, noised = self._noised(latents, self.specs[0].refiner.strength)
        num_steps = len(sampler.schedule.starts)
        latents = sampler.run(self._refiner_stage(), noised, 0, num_steps)
        return Denoised(latents, base_steps, num_steps, sampler.schedule.sigma(0))

    def encoded(self, inputs: PassInputs) -> torch.Tensor:
        return encoded(self.pair, inputs.init_images, self.generators)

    def _begun(self, inputs: PassInputs) -> tuple[Sampler, torch.Tensor]:
        """The base's sampler and what its first step starts from: noise, or the noised init images."""
        spec = self.specs[0]
        if spec.strength is not None:
            return self._noised(self.encoded(inputs), spec.strength)
        sampler = self._sampler()
        noise = self._noise(
            (len(self.specs), self.pair.base.unet.config.in_channels, spec.height // 8, spec.width // 8)
        )
        return sampler, noise * sampler.schedule.scheduler.init_noise_sigma

    def _noised(self, latents: torch.Tensor, strength: float) -> tuple[Sampler, torch.Tensor]:
        num_steps = self.specs[0].num_inference_steps
        sampler = self._sampler(first_step=num_steps - num_image_to_image_steps(num_steps, strength))
        timestep = sampler.schedule.timesteps[:1].repeat(len(latents))
        return sampler, sampler.schedule.scheduler.add_noise(latents, self._noise(latents.shape), timestep)

    def _noise(self, shape: Sequence[int]) -> torch.Tensor:
        return randn_tensor(tuple(shape), generator=self.generators, device=self.pair.device, dtype=self.pair.dtype)

    def _sampler(self, first_step: int = 0) -> Sampler:
        schedule = noise_schedule(self.pair, self.specs, first_step)
        self.pair.base.scheduler = schedule.scheduler  # which the next line asks what its steps take
        return Sampler(schedule, self.pair.base.prepare_extra_step_kwargs(self.generators, 0.0), self.stop)

    def _base_stage(self) -> Stage:
        spec, told = self.specs[0], base_conditioning(self.pair, self.specs)
        return Stage(self.pair.base.unet, told, spec.guidance_scale, spec.guidance_rescale)

    def _refiner_stage(self) -> Stage:
        told = refiner_conditioning(self.pair, self.specs)
        return Stage(self.pair.refiner.unet, told, refiner_guidance(self.specs[0]))
