"""Two stages, init images and the refiner alone, held against diffusers' img2img pipelines."""

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from schemas.schedulers import SCHEDULERS
from schemas.spec import JobSpec
from tests.unit.schedulers import fresh_scheduler
from worker.passes.inputs import PassInputs
from worker.passes.noise_schedule import noise_schedule
from worker.passes.rendering import denoise

SHA256 = "0" * 64
TWO_STAGES = {"refiner": {"mode": "img2img", "strength": 0.5}}
#: begins in the middle of its schedule at the wrong timestep in diffusers
WRONG_IN_DIFFUSERS = "pndm"


def spec(**fields):
    return JobSpec.parse(
        {"prompt": "a red fox", "width": 64, "height": 64, "num_inference_steps": 6, "seed": 7} | fields
    )


def never():
    return False


@pytest.fixture(scope="module")
def picture():
    """Soft shapes and an edge, (64, 64, 3)."""
    row, column = np.mgrid[:64, :64]
    red, green = 128 + 100 * np.sin(row / 9), 128 + 100 * np.cos(column / 7)
    return np.stack([red, green, 255.0 * (row > column)], axis=-1).astype(np.uint8)


def latents_of(pair, *specs, images=()):
    return denoise(pair, specs, never, PassInputs(init_images=images)).latents


def with_schedulers(config, pipes, one):
    """The pipelines, with a fresh scheduler each. ``config``: the base's, as it came."""
    options = {"noise_sampler_seed": [one.seed]} if one.scheduler == "DPMSolverSDEScheduler" else {}
    for pipe in pipes:
        pipe.scheduler = fresh_scheduler(one.scheduler, config, **options)
    return pipes


def settings_of(one, generator):
    return {"prompt": one.prompt, "num_inference_steps": one.num_inference_steps, "generator": generator,
            "guidance_scale": one.guidance_scale, "output_type": "latent"}  # fmt: skip


def two_stages_by_diffusers(config, pipes, one):
    """As its documentation shows them: the base's latents are the refiner's image."""
    base, refiner = with_schedulers(config, pipes, one)
    settings = settings_of(one, torch.Generator("cpu").manual_seed(one.seed))
    latents = base(**settings, height=one.height, width=one.width).images
    return refiner(**settings, image=latents, strength=one.refiner.strength).images


def with_base_img2img(pair):
    """The base, to begin with a picture, and the refiner."""
    base, refiner = pair
    parts = {name: part for name, part in base.components.items() if name not in ("image_encoder", "feature_extractor")}
    pipe = diffusers.StableDiffusionXLImg2ImgPipeline(**parts, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe, refiner


@pytest.mark.parametrize("scheduler", [name for name in SCHEDULERS if name != WRONG_IN_DIFFUSERS])
def test_two_stages_are_what_diffusers_renders(smallest, smallest_diffusers_pair, scheduler):
    one = spec(scheduler=scheduler, **TWO_STAGES)
    found = denoise(smallest, [one], never)
    assert torch.equal(found.latents, two_stages_by_diffusers(smallest.scheduler_config, smallest_diffusers_pair, one))
    assert (found.base_steps, found.refiner_steps) == (6, 3)


@pytest.mark.parametrize("scheduler", ["euler", "euler a", "dpm++ 2m", "heun"])
def test_base_img2img_is_what_diffusers_renders(smallest, smallest_diffusers_pair, picture, scheduler):
    one = spec(scheduler=scheduler, init_image=SHA256, strength=0.7, refiner={"mode": "off"})
    (pipe, _) = with_schedulers(smallest.scheduler_config, with_base_img2img(smallest_diffusers_pair), one)
    generator = torch.Generator("cpu").manual_seed(one.seed)
    reference = pipe(**settings_of(one, generator), image=Image.fromarray(picture), strength=0.7).images
    assert torch.equal(latents_of(smallest, one, images=(picture,)), reference)
    assert not torch.equal(latents_of(smallest, one, images=(picture[::-1].copy(),)), reference)


@pytest.mark.parametrize("scheduler", ["euler", "ddim", "dpm++ sde", "unipc"])
def test_the_refiner_alone_is_what_diffusers_renders(smallest, smallest_diffusers_pair, picture, scheduler):
    one = spec(scheduler=scheduler, init_image=SHA256, refiner={"mode": "only", "strength": 0.5, "guidance_scale": 3})
    _, refiner = with_schedulers(smallest.scheduler_config, smallest_diffusers_pair, one)
    settings = settings_of(one, torch.Generator("cpu").manual_seed(one.seed)) | {"guidance_scale": 3.0}
    reference = refiner(**settings, image=Image.fromarray(picture), strength=0.5).images
    found = denoise(smallest, [one], never, PassInputs((picture,)))
    assert torch.equal(found.latents, reference)
    assert (found.base_steps, found.refiner_steps) == (0, 3)


def test_an_ensemble_may_begin_with_a_picture(smallest, smallest_diffusers_pair, picture):
    """diffusers can do it too, with Euler, which loses nothing at its seam."""
    one = spec(num_inference_steps=10, init_image=SHA256, strength=0.6, refiner={"start": 0.7})
    (pipe, refiner) = with_schedulers(smallest.scheduler_config, with_base_img2img(smallest_diffusers_pair), one)
    settings = settings_of(one, torch.Generator("cpu").manual_seed(one.seed))
    latents = pipe(**settings, image=Image.fromarray(picture), strength=0.6, denoising_end=0.7).images
    reference = refiner(**settings, image=latents, denoising_start=0.7).images
    found = denoise(smallest, [one], never, PassInputs((picture,)))
    assert torch.equal(found.latents, reference)
    assert (found.base_steps, found.refiner_steps) == (3, 3)
    in_steps = spec(num_inference_steps=10, init_image=SHA256, strength=0.6, refiner={"start_step": 7})
    assert torch.equal(latents_of(smallest, in_steps, images=(picture,)), reference)


def test_each_picture_of_a_pass_is_its_own(smallest, picture):
    mirrored = np.ascontiguousarray(picture[:, ::-1])
    pictures = [picture, mirrored, picture]
    specs = [spec(init_image=SHA256, strength=0.5, seed=seed) for seed in (1, 2, 3)]
    together = latents_of(smallest, *specs, images=tuple(pictures))
    for place, (one, image) in enumerate(zip(specs, pictures, strict=True)):
        assert (latents_of(smallest, one, images=(image,))[0] - together[place]).abs().max() < 1e-3
    assert (latents_of(smallest, specs[0], images=(mirrored,))[0] - together[0]).abs().max() > 1e-3


@pytest.mark.parametrize("scheduler", ["euler", "heun", "ddim", "pndm", "dpm2", "dpm++ 2m", "unipc"])
@pytest.mark.parametrize("num_left", [1, 2, 3, 7])
def test_whoever_knows_the_noise_gets_the_picture_back(smallest, scheduler, num_left):
    """From any step on: noise goes in and the same noise is predicted at every evaluation."""
    schedule = noise_schedule(smallest, [spec(scheduler=scheduler, num_inference_steps=10)], 10 - num_left)
    assert len(schedule.starts) == num_left
    picture, noise = (torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    latents = schedule.scheduler.add_noise(picture, noise, schedule.timesteps[:1])
    for timestep in schedule.timesteps:
        latents = schedule.scheduler.step(noise, timestep, latents, return_dict=False)[0]
    rest = (1 - schedule.scheduler.alphas_cumprod[0]).item() ** 0.5  # what DDIM and PNDM leave of the noise
    left = noise * rest + picture * (1 - rest**2) ** 0.5 if scheduler in ("ddim", "pndm") else picture
    assert (latents - left).abs().max() < 2e-3
