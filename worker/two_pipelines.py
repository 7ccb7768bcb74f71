"""The handoff as diffusers does it: its two pipelines, one after the other, for those who must match old images.

The refiner's call sets the scheduler's timesteps anew, so what the solver remembers is lost, and a scheduler of two
evaluations a step may be cut within one: exact for Euler, Euler a, DDIM and DDPM only.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import SchedulerMixin

from schemas.errors import LeaseLostError
from schemas.spec import JobSpec
from worker.denoising import Denoised, Stop, check_both_have_steps, new_scheduler, sigma, step_starts
from worker.embedding import SdxlPipeline, embed, stacked
from worker.pipelines import LoadedPair


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

    def denoise(self, pipe: SdxlPipeline, **options: Any) -> torch.Tensor:
        pipe.scheduler = self.scheduler
        return pipe(
            num_inference_steps=self.specs[0].num_inference_steps,
            guidance_scale=self.specs[0].guidance_scale,
            generator=self.generators,
            output_type="latent",
            **stacked([embed(pipe, spec) for spec in self.specs]),
            **options,
        ).images


@torch.inference_mode()
def denoise_by_diffusers(pair: LoadedPair, specs: Sequence[JobSpec], stop: Stop) -> Denoised:
    """Base and refiner of one forward pass. A step that was cut counts on both sides: it ran, in part, on both.

    Raises:
        LeaseLostError: ``stop`` answered yes.
        SpecError: the handoff leaves a side without a step.
    """
    spec = specs[0]
    generators = [torch.Generator("cpu").manual_seed(spec.seed) for spec in specs]
    run = _Run(specs, new_scheduler(pair, specs), generators)
    base, refiner = _Evaluations(stop), _Evaluations(stop)
    latents = run.denoise(
        pair.base, callback_on_step_end=base, height=spec.height, width=spec.width, denoising_end=spec.refiner.start
    )
    latents = run.denoise(
        pair.refiner,
        callback_on_step_end=refiner,
        image=latents,
        denoising_start=spec.refiner.start,
        aesthetic_score=spec.refiner.aesthetic_score,
        negative_aesthetic_score=spec.refiner.negative_aesthetic_score,
    )
    starts, seam = step_starts(run.scheduler), len(run.scheduler.timesteps) - refiner.done
    base_steps = sum(start < base.done for start in starts)
    refiner_steps = len(starts) - max((place for place, start in enumerate(starts) if start <= seam), default=0)
    check_both_have_steps(spec, min(base_steps, base.done), min(refiner_steps, refiner.done))
    return Denoised(latents, base_steps, refiner_steps, sigma(run.scheduler, seam))
