"""The handoff as diffusers does it: its two pipelines, one after the other, for those who must match old images.

The refiner's call sets the scheduler's timesteps anew, so what the solver remembers is lost, and a scheduler of two
evaluations a step may be cut within one: exact for Euler, Euler a, DDIM and DDPM only.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import SchedulerMixin

from schemas.combinations import refiner_guidance
from schemas.errors import LeaseLostError
from schemas.spec import JobSpec
from worker.loading.pipelines import LoadedPair
from worker.passes.denoising import Denoised, Stop
from worker.passes.embedding import embed, stacked
from worker.passes.noise_schedule import NoiseSchedule, check_both_have_steps, noise_schedule, step_starts
from worker.passes.prompts import StagePrompts, base_prompts, refiner_prompts
from worker.passes.remembered_texts import RememberedTexts
from worker.passes.text_encoder import SdxlPipeline


@dataclass
class _Evaluations:
    """Counts a pipeline's evaluations, and ends it where the pack is somebody else's by now."""

    stop: Stop
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
    texts: RememberedTexts

    def denoise(self, pipe: SdxlPipeline, prompts: Sequence[StagePrompts], **options: Any) -> torch.Tensor:
        pipe.scheduler = self.scheduler
        spec = self.specs[0]
        return pipe(
            num_inference_steps=spec.num_inference_steps,
            generator=self.generators,
            output_type="latent",
            original_size=spec.original_size,
            target_size=spec.target_size,
            crops_coords_top_left=spec.crops_coords_top_left or (0, 0),
            **stacked([embed(pipe, one, self.texts) for one in prompts]),
            **options,
        ).images


@torch.inference_mode()
def denoise_by_diffusers(pair: LoadedPair, specs: Sequence[JobSpec], stop: Stop) -> Denoised:
    """Base and refiner of one forward pass. A step that was cut within counts as the refiner's, which ends it.

    Raises:
        LeaseLostError: ``stop`` answered yes.
        SpecError: the handoff leaves a side without a step.
    """
    spec = specs[0]
    generators = [torch.Generator("cpu").manual_seed(spec.seed) for spec in specs]
    run = _Run(specs, noise_schedule(pair, specs).scheduler, generators, pair.texts)
    base, refiner = _Evaluations(stop), _Evaluations(stop)
    latents = run.denoise(
        pair.base,
        [base_prompts(spec) for spec in specs],
        callback_on_step_end=base,
        guidance_scale=spec.guidance_scale,
        guidance_rescale=spec.guidance_rescale,
        denoising_end=spec.refiner.start,
        height=spec.height,
        width=spec.width,
    )
    latents = run.denoise(
        pair.refiner,
        [refiner_prompts(spec) for spec in specs],
        callback_on_step_end=refiner,
        guidance_scale=refiner_guidance(spec),
        image=latents,
        denoising_start=spec.refiner.start,
        aesthetic_score=spec.refiner.aesthetic_score,
        negative_aesthetic_score=spec.refiner.negative_aesthetic_score,
    )
    return _counted(run, latents, base.done, refiner.done)


def _counted(run: _Run, latents: torch.Tensor, base_evaluations: int, refiner_evaluations: int) -> Denoised:
    num_evaluations = len(run.scheduler.timesteps)
    starts, seam = step_starts(run.scheduler), num_evaluations - refiner_evaluations
    base_steps = sum(end <= base_evaluations for end in [*starts[1:], num_evaluations])
    refiner_steps = len(starts) - base_steps
    check_both_have_steps(run.specs[0], min(base_steps, base_evaluations), min(refiner_steps, refiner_evaluations))
    schedule = NoiseSchedule(run.scheduler, run.scheduler.timesteps, list(range(num_evaluations)))
    return Denoised(latents, base_steps, refiner_steps, schedule.sigma(seam))
