"""A scheduler and the evaluations of a UNet that it asks for, from a whole step on.

A step may take several evaluations (Heun looks ahead, PNDM begins with two), so whoever hands over, or begins later
than at the first step, does so between whole steps only.
"""

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Final

import diffusers
import torch
from diffusers import PNDMScheduler, SchedulerMixin

from schemas.errors import SpecError
from schemas.spec import JobSpec
from worker.loading.pipelines import LoadedPair

#: Its noise is a path drawn from a seed, and not by a generator.
_DRAWS_FROM_SEEDS: Final = "DPMSolverSDEScheduler"
_PNDM_RUNGE_KUTTA_STEPS: Final = 3
_REMEMBERED_SCHEDULERS: Final = 16


@dataclass(frozen=True)
class NoiseSchedule:
    """A fresh scheduler before its first evaluation, and what is to come."""

    scheduler: SchedulerMixin
    #: of each evaluation, on the device: for the UNets
    timesteps: torch.Tensor
    #: for each whole step, the evaluation (an index of ``timesteps``) that it begins with
    starts: list[int]

    @cached_property
    def timesteps_on_host(self) -> torch.Tensor:
        """For the scheduler. DDIM, DDPM and PNDM look things up by the timestep, in tables that are on the host: with
        one on the device the host would wait for the device at every step."""
        return self.timesteps.cpu()

    def sigma(self, step: int) -> float:
        """The noise level before a step; of a scheduler without sigmas, what its other numbers say."""
        if not hasattr(self.scheduler, "sigmas"):
            kept = self.scheduler.alphas_cumprod[self.timesteps_on_host[self.starts[step]].long()].item()
            return ((1 - kept) / kept) ** 0.5
        num_left_out = len(self.scheduler.timesteps) - len(self.timesteps)
        return self.scheduler.sigmas[num_left_out + self.starts[step]].item()


def noise_schedule(pair: LoadedPair, specs: Sequence[JobSpec], first_step: int = 0) -> NoiseSchedule:
    """The schedule of a forward pass from a whole step on.

    Raises:
        SpecError: the scheduler cannot begin there, or takes another number of steps than it was asked for.
    """
    scheduler = new_scheduler(pair, specs)
    scheduler.set_timesteps(specs[0].num_inference_steps, device=pair.device)
    timesteps = scheduler.timesteps
    scheduler.timesteps = timesteps.cpu()  # where DDPM looks for the next one in every step
    starts = step_starts(scheduler)
    _check_steps(specs[0], scheduler.timesteps[starts].tolist(), scheduler.config.num_train_timesteps)
    if isinstance(scheduler, PNDMScheduler) and first_step:
        return _later_pndm(scheduler, timesteps, starts, first_step)
    first = starts[first_step]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    return NoiseSchedule(scheduler, timesteps[first:], [start - first for start in starts[first_step:]])


def _check_steps(spec: JobSpec, timesteps: list[float], num_train_timesteps: int) -> None:
    """Rounding gives some configurations one step too many, with the timestep -1 (``timestep_spacing`` trailing at 61
    steps), or one that was not trained (leading, at as many steps as there are timesteps)."""
    num_steps = len(timesteps)
    if num_steps != spec.num_inference_steps or not 0 <= min(timesteps) <= max(timesteps) < num_train_timesteps:
        raise SpecError(
            f"num_inference_steps: {spec.num_inference_steps}: {spec.scheduler} makes {num_steps} steps of them with"
            f" this pair's configuration, from timestep {max(timesteps):g} to {min(timesteps):g}; take fewer"
        )


def new_scheduler(pair: LoadedPair, specs: Sequence[JobSpec]) -> SchedulerMixin:
    """The scheduler of a forward pass, from the base's configuration and the specs' options."""
    name = specs[0].scheduler
    options = dict(specs[0].scheduler_options)
    if name == _DRAWS_FROM_SEEDS:
        options["noise_sampler_seed"] = [spec.seed for spec in specs]
    if name == "DPMSolverSinglestepScheduler" and _last_sigma(pair, options) == "zero":
        options["lower_order_final"] = True  # diffusers switches it on itself, and warns in each pass
    return copy.deepcopy(_unused_scheduler(name, json.dumps(dict(pair.scheduler_config)), json.dumps(options)))


@lru_cache(maxsize=_REMEMBERED_SCHEDULERS)
def _unused_scheduler(name: str, config: str, options: str) -> SchedulerMixin:
    """``config``, ``options``: as JSON. To be copied: making KDPM2's takes 0.4 s, copying it half a millisecond."""
    return getattr(diffusers, name).from_config(json.loads(config), **json.loads(options))


def _last_sigma(pair: LoadedPair, options: dict[str, Any]) -> str:
    return options.get("final_sigmas_type") or pair.scheduler_config.get("final_sigmas_type", "zero")


def step_starts(scheduler: SchedulerMixin) -> list[int]:
    """For each whole step, the evaluation (an index of the scheduler's ``timesteps``) that it begins with."""
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


def _later_pndm(scheduler: PNDMScheduler, timesteps: torch.Tensor, starts: list[int], first_step: int) -> NoiseSchedule:
    """Its first two evaluations take one step wherever it begins. diffusers' img2img cuts its list of timesteps
    elsewhere, so that from the third one on the UNet is told a timestep that is not the latents'."""
    if not scheduler.config.skip_prk_steps:
        raise SpecError("strength: PNDM with Runge-Kutta steps cannot begin in the middle of its noise schedule")
    steps = timesteps[starts]
    timesteps = torch.cat([steps[first_step : first_step + 2], steps[first_step + 1 :]])
    return NoiseSchedule(scheduler, timesteps, [0, *range(2, len(timesteps))])


def handoff_step(schedule: NoiseSchedule, spec: JobSpec) -> int:
    """How many whole steps of the schedule the base runs.

    ``start`` is read as diffusers reads ``denoising_end``: a step is the base's while its timestep is not below the
    cutoff.

    Raises:
        SpecError: base or refiner would have no step.
    """
    num_steps = len(schedule.starts)
    num_base_steps = spec.refiner.num_base_steps(spec.num_inference_steps)
    if num_base_steps is None:
        num_train = schedule.scheduler.config.num_train_timesteps
        cutoff = round(num_train - spec.refiner.start * num_train)
        num_base_steps = sum(timestep >= cutoff for timestep in schedule.timesteps_on_host[schedule.starts].tolist())
    else:
        num_base_steps -= spec.num_inference_steps - num_steps
    check_both_have_steps(spec, num_base_steps, num_steps - num_base_steps)
    return num_base_steps


def check_both_have_steps(spec: JobSpec, base_steps: int, refiner_steps: int) -> None:
    """Raises SpecError where one of them has none."""
    if base_steps < 1 or refiner_steps < 1:
        raise SpecError(
            f"refiner.start: {spec.refiner.start} of {spec.num_inference_steps} steps leaves"
            f" {base_steps} to the base and {refiner_steps} to the refiner; each needs one"
        )
