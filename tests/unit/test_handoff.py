"""The lossless handoff: with the base in the refiner's place, a split run is the unsplit one, bit for bit."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import (
    PNDMScheduler,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)

from schemas.errors import SpecError
from schemas.schedulers import SCHEDULER_OPTIONS, SCHEDULERS
from schemas.spec import JobSpec
from worker.passes.conditioning import base_conditioning
from worker.passes.denoising import Sampler, Stage, denoise
from worker.passes.noise_schedule import handoff_step, noise_schedule, step_starts
from worker.passes.two_pipelines import denoise_by_diffusers

RENDERING = (Path(__file__).parents[2] / "docs" / "rendering.md").read_text()

#: schedulers that remember something from one whole step to the next
REMEMBERING = ["lms", "pndm", "dpm++ 2m", "deis", "unipc"]
MEMORYLESS = ["euler", "euler a", "heun", "ddim", "ddpm", "dpm2", "dpm2 a"]
NAMES = [
    name + schedule
    for name in SCHEDULERS
    for schedule in ("", " karras")
    if not schedule or "use_karras_sigmas" in SCHEDULER_OPTIONS[SCHEDULERS[name]]
]


def spec(**fields):
    return JobSpec.parse({"prompt": "a red fox", "width": 64, "height": 64, "seed": 7, "guidance_scale": 1} | fields)


def never():
    return False


@pytest.fixture(scope="module")
def twin(smallest):
    """The base, and the base again in the refiner's place: same UNet, same encoders, same time ids."""
    parts = {**smallest.base.components, "unet": quick_unet(smallest.base.unet.config)}
    base = StableDiffusionXLPipeline(**parts, add_watermarker=False)
    refiner = StableDiffusionXLImg2ImgPipeline(**parts, requires_aesthetics_score=False, add_watermarker=False)
    return replace(smallest, base=base, refiner=refiner)


def quick_unet(config):
    """Takes what SDXL's UNet takes, and answers in a millisecond: ten thousand evaluations follow."""
    torch.manual_seed(0)
    return UNet2DConditionModel.from_config(
        config, layers_per_block=1, mid_block_type=None,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
    ).eval()  # fmt: skip


@pytest.mark.parametrize("num_steps", [10, 15])
@pytest.mark.parametrize("scheduler", NAMES)
def test_split_is_unsplit(twin, scheduler, num_steps):
    fields = {"scheduler": scheduler, "num_inference_steps": num_steps}
    unsplit = denoise(twin, [spec(**fields, refiner={"mode": "off"})], never)
    assert unsplit.base_steps == num_steps
    assert unsplit.latents.isfinite().all()
    # of 10 steps, DPM++ 2S has none in the last tenth of the schedule
    last = {"start_percent": 90} if (scheduler, num_steps) == ("dpm++ 2s", 10) else {"start": 0.9}
    for refiner in ({"start": 0.6}, {"start": 0.8}, last) if num_steps == 10 else ({"start": 0.8},):
        split = denoise(twin, [spec(**fields, refiner=refiner)], never)
        assert torch.equal(split.latents, unsplit.latents)
        assert split.base_steps + split.refiner_steps == num_steps
        assert min(split.base_steps, split.refiner_steps) >= 1


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_split_is_unsplit_at_every_step_and_with_guidance(twin, scheduler):
    fields = {"scheduler": scheduler, "num_inference_steps": 5, "guidance_scale": 6}
    unsplit = denoise(twin, [spec(**fields, refiner={"mode": "off"})], never)
    for num_base_steps in range(1, 5):
        split = denoise(twin, [spec(**fields, refiner={"start_step": num_base_steps})], never)
        assert torch.equal(split.latents, unsplit.latents)
        assert (split.base_steps, split.refiner_steps) == (num_base_steps, 5 - num_base_steps)


def test_the_comparison_sees_another_unet(twin, smallest):
    for scheduler in SCHEDULERS:
        one = spec(scheduler=scheduler, num_inference_steps=4, refiner={"start_step": 2})
        assert not torch.equal(denoise(twin, [one], never).latents, denoise(smallest, [one], never).latents)


def _run(pair, one, fresh_at_the_seam):
    """As ``denoise`` does it for the twin; with another scheduler from the handoff on where that is asked for."""
    generators = [torch.Generator().manual_seed(one.seed)]
    schedule = noise_schedule(pair, [one])
    pair.base.scheduler = schedule.scheduler
    latents = pair.base.prepare_latents(1, 4, 64, 64, torch.float32, "cpu", generators)
    stage = Stage(pair.base.unet, base_conditioning(pair, [one]), one.guidance_scale)
    seam, end = handoff_step(schedule, one), one.num_inference_steps
    options = pair.base.prepare_extra_step_kwargs(generators, 0.0)
    latents = Sampler(schedule, options, never).run(stage, latents, 0, seam)
    if fresh_at_the_seam:
        return Sampler(noise_schedule(pair, [one], first_step=seam), options, never).run(stage, latents, 0, end - seam)
    return Sampler(schedule, options, never).run(stage, latents, seam, end)


@pytest.mark.parametrize("scheduler", [*REMEMBERING, *MEMORYLESS])
def test_a_fresh_scheduler_at_the_seam_loses_what_the_solver_remembers(twin, scheduler):
    one = spec(scheduler=scheduler, num_inference_steps=10)
    with torch.inference_mode():
        kept, lost = _run(twin, one, fresh_at_the_seam=False), _run(twin, one, fresh_at_the_seam=True)
    assert torch.equal(kept, denoise(twin, [one], never).latents)
    assert torch.equal(kept, lost) == (scheduler in MEMORYLESS)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_evaluation_belongs_to_one_step(smallest, scheduler):
    for num_steps in (1, 2, 3, 10, 998):
        schedule = noise_schedule(smallest, [spec(scheduler=scheduler, num_inference_steps=num_steps)])
        assert (len(schedule.starts), schedule.starts[0]) == (num_steps, 0)
        first_timesteps = schedule.timesteps[schedule.starts].tolist()
        assert first_timesteps == sorted(set(first_timesteps), reverse=True)


@pytest.mark.parametrize("scheduler", [name for name in NAMES if "dpm++ 2s" not in name and "karras" not in name])
def test_trailing_steps_are_as_many_as_asked_for_or_refused(smallest, scheduler):
    options = {"timestep_spacing": "trailing"}
    for num_steps in (60, 61, 103, 200):
        fields = {"scheduler": scheduler, "num_inference_steps": num_steps}
        # a pair's own configuration, which no spec says
        pair = replace(smallest, scheduler_config=dict(smallest.scheduler_config) | options)
        try:
            spec(**fields, scheduler_options=options)
        except SpecError:
            reason = f"{num_steps}: .* makes {num_steps + 1} steps of them .* to -1; take fewer"
            with pytest.raises(SpecError, match=reason):
                noise_schedule(pair, [spec(**fields)])
            with pytest.raises(SpecError, match=reason):
                denoise_by_diffusers(pair, [spec(**fields, refiner={"handoff": "diffusers"})], never)
        else:
            assert len(noise_schedule(pair, [spec(**fields)]).starts) == num_steps


def test_pndm_with_its_runge_kutta_steps_has_four_evaluations_in_each_of_three():
    scheduler = PNDMScheduler(skip_prk_steps=False)
    scheduler.set_timesteps(10)
    assert step_starts(scheduler) == [0, 4, 8, 12, 13, 14, 15, 16, 17, 18]
    assert len(scheduler.timesteps) == 19


def test_the_sigma_at_the_handoff_is_that_of_the_refiners_first_step(smallest):
    euler = noise_schedule(smallest, [spec(num_inference_steps=5)]).scheduler
    for name in ("euler", "euler a", "lms", "heun", "dpm2", "dpm2 a", "dpm++ sde", "ddim", "ddpm", "pndm"):
        one = spec(scheduler=name, num_inference_steps=5, refiner={"start_step": 3})  # all of the same timesteps
        assert denoise(smallest, [one], never).handoff_sigma == pytest.approx(euler.sigmas[3].item(), rel=1e-5)


@pytest.mark.parametrize("fields", [{"num_inference_steps": 1}, {"refiner": {"start": 0.999}}])
def test_a_handoff_that_leaves_a_side_without_a_step_is_refused(smallest, fields):
    with pytest.raises(SpecError, match="each needs one"):
        denoise(smallest, [spec(**fields)], never)


def split_of_40(pair, scheduler):
    one = spec(scheduler=scheduler, num_inference_steps=40)
    num_base_steps = handoff_step(noise_schedule(pair, [one]), one)
    return f"{num_base_steps} + {40 - num_base_steps}"


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_documented_step_splits_are_those_that_run(smallest, name):
    (row,) = re.findall(rf"^\| `{re.escape(name)}` \| `\w+` \|.*$", RENDERING, re.M)
    _, _, class_name, default, karras, _, _ = (cell.strip() for cell in row.split("|"))
    assert class_name == f"`{SCHEDULERS[name]}`"
    assert default == split_of_40(smallest, name)
    assert karras == (split_of_40(smallest, f"{name} karras") if f"{name} karras" in NAMES else "")
