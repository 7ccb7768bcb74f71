"""Rendering, held against diffusers' pipelines called as its documentation shows."""

import math
from dataclasses import replace

import diffusers
import numpy as np
import pytest
import torch
from compel import Compel, CompelForSDXL, ReturnedEmbeddingsType

from schemas.errors import DeviceLostError, DeviceMemoryError, LeaseLostError, SpecError
from schemas.pair import BUILT_IN_PAIRS
from schemas.schedulers import SCHEDULERS
from schemas.spec import JobSpec
from tests.unit.schedulers import fresh_scheduler
from worker.loading.pipelines import load_pair
from worker.passes.rendering import denoise, render

#: those of which diffusers' own handoff loses nothing
EXACT_IN_DIFFUSERS = ["euler", "euler a", "ddim", "ddpm"]
LONG = "a red fox in the snow, with long whiskers and a bushy tail. it looks at the moon; the trees are dark. " * 5


def spec(**fields):
    return JobSpec.parse(
        {"prompt": "a red fox", "width": 64, "height": 64, "num_inference_steps": 5, "seed": 7} | fields
    )


def never():
    return False


def by_diffusers(pipes, one, *, output_type="pil", refiner_seed=None, embeds=({}, {}), **refiner_options):
    """Base and refiner as in diffusers' documentation: two calls, one generator."""
    base, refiner = pipes
    options = dict(one.scheduler_options)
    if one.scheduler == "DPMSolverSDEScheduler":
        options["noise_sampler_seed"] = [one.seed]
    scheduler = diffusers.EulerDiscreteScheduler.load_config(base.config._name_or_path, subfolder="scheduler")
    base.scheduler = fresh_scheduler(one.scheduler, scheduler, **options)
    refiner.scheduler = fresh_scheduler(one.scheduler, scheduler, **options)
    generator = torch.Generator("cpu").manual_seed(one.seed)
    settings = {"num_inference_steps": one.num_inference_steps, "guidance_scale": one.guidance_scale}
    prompts = {"prompt": one.prompt, "negative_prompt": one.negative_prompt}
    if one.refiner.mode == "off":
        return base(**(embeds[0] or prompts), **settings, height=one.height, width=one.width, generator=generator,
                    output_type=output_type).images  # fmt: skip
    latents = base(**(embeds[0] or prompts), **settings, height=one.height, width=one.width, generator=generator,
                   denoising_end=one.refiner.start, output_type="latent").images  # fmt: skip
    if refiner_seed is not None:
        generator = torch.Generator("cpu").manual_seed(refiner_seed)
    return refiner(**(embeds[1] or prompts), **settings, image=latents, denoising_start=one.refiner.start,
                   generator=generator, output_type=output_type, **refiner_options).images  # fmt: skip


def difference(left, right):
    """The largest difference of two 8-bit pictures."""
    return int(np.abs(np.asarray(left).astype(int) - np.asarray(right).astype(int)).max())


def latents_of(pair, *specs):
    return denoise(pair, specs, never).latents


def is_what_diffusers_renders(pair, pipes, one):
    latents = by_diffusers(pipes, one, output_type="latent")
    return torch.equal(latents_of(pair, one), latents) and bool(latents.isfinite().all())


@pytest.mark.parametrize("refiner", [{"mode": "off"}, {"start": 0.8}, {"start": 0.35}])
def test_a_picture_of_a_pass_of_one_is_the_one_that_diffusers_renders(tiny, diffusers_pair, refiner):
    one = spec(refiner=refiner, negative_prompt="blurry")
    picture = render(tiny, [one]).images[0]
    assert picture.shape == (64, 64, 3)
    assert picture.dtype == np.uint8
    assert difference(picture, by_diffusers(diffusers_pair, one)[0]) == 0


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_the_base_alone_is_what_diffusers_renders(smallest, smallest_diffusers_pair, scheduler):
    one = spec(scheduler=scheduler, refiner={"mode": "off"}, seed=2**64 - 1)
    assert is_what_diffusers_renders(smallest, smallest_diffusers_pair, one)


@pytest.mark.parametrize(
    ("scheduler", "options"),
    [
        ("euler", {"timestep_spacing": "trailing", "use_beta_sigmas": True}),
        ("dpm++ 2m sde karras", {"euler_at_final": True}),
        ("dpm++ sde karras", {}),
        ("unipc", {"solver_type": "bh1", "solver_order": 3, "final_sigmas_type": "sigma_min"}),
        ("ddpm", {"variance_type": "fixed_large"}),
    ],
)
def test_scheduler_options_reach_diffusers(smallest, smallest_diffusers_pair, scheduler, options):
    fields = {"scheduler": scheduler, "refiner": {"mode": "off"}}
    one = spec(**fields, scheduler_options=options)
    assert is_what_diffusers_renders(smallest, smallest_diffusers_pair, one)
    assert not torch.equal(
        latents_of(smallest, one), latents_of(smallest, spec(**fields | {"scheduler": one.scheduler}))
    )


@pytest.mark.parametrize("scheduler", [*EXACT_IN_DIFFUSERS, "euler karras"])
@pytest.mark.parametrize("start", [0.8, 0.35])
def test_an_ensemble_is_what_diffusers_renders_where_it_loses_nothing(
    smallest, smallest_diffusers_pair, scheduler, start
):
    one = spec(scheduler=scheduler, refiner={"start": start})
    assert is_what_diffusers_renders(smallest, smallest_diffusers_pair, one)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_the_handoff_of_diffusers_is_that_of_its_documentation(smallest, smallest_diffusers_pair, scheduler):
    one = spec(scheduler=scheduler, refiner={"handoff": "diffusers", "start": 0.6}, num_inference_steps=7)
    assert is_what_diffusers_renders(smallest, smallest_diffusers_pair, one)
    lossless = spec(scheduler=scheduler, refiner={"start": 0.6}, num_inference_steps=7)
    loses_nothing = torch.equal(latents_of(smallest, one), latents_of(smallest, lossless))
    assert loses_nothing == (scheduler in EXACT_IN_DIFFUSERS)


@pytest.mark.parametrize(
    "fields",
    [
        {"negative_prompt": None},
        {"negative_prompt": ""},
        {"guidance_scale": 1.0},
        {"width": 96, "height": 72},
        {"seed": 2**64 - 1},
        {"seed": 2**63},
        {"seed": 0},
        {"num_inference_steps": 1, "refiner": {"mode": "off"}},
        {"refiner": {"aesthetic_score": 3.0, "negative_aesthetic_score": 6.0}},
    ],
)
def test_every_setting_reaches_the_pipelines(smallest, smallest_diffusers_pair, fields):
    one = spec(**fields)
    scores = one.refiner.model_dump(include={"aesthetic_score", "negative_aesthetic_score"})
    reference = by_diffusers(smallest_diffusers_pair, one, output_type="latent", **scores)
    assert torch.equal(latents_of(smallest, one), reference)


SIZES = {"original_size": "512,768", "target_size": "1024,1024", "crops_coords_top_left": "0,128"}
NEGATIVE_SIZES = {"negative_original_size": "256,256", "negative_target_size": "1024,1024",
                  "negative_crops_coords_top_left": "8,0"}  # fmt: skip


@pytest.mark.parametrize("fields", [SIZES, NEGATIVE_SIZES, SIZES | NEGATIVE_SIZES, {"guidance_rescale": 0.7}])
@pytest.mark.parametrize("refiner", [{"mode": "off"}, {"start": 0.6}])
def test_what_is_told_of_sizes_and_guidance_is_as_in_diffusers(smallest, smallest_diffusers_pair, fields, refiner):
    one = spec(**fields, refiner=refiner)
    sizes = {name: getattr(one, name) for name in fields if name != "guidance_rescale"}
    base, refiner_pipe = smallest_diffusers_pair
    base.scheduler = refiner_pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(smallest.scheduler_config)
    generator = torch.Generator("cpu").manual_seed(one.seed)
    settings = {"prompt": one.prompt, "num_inference_steps": 5, "generator": generator, "output_type": "latent",
                "guidance_scale": 5.0, **sizes}  # fmt: skip
    base_only = {"guidance_rescale": one.guidance_rescale, "height": 64, "width": 64}
    if one.refiner.mode == "off":
        reference = base(**settings, **base_only).images
    else:
        latents = base(**settings, **base_only, denoising_end=0.6).images
        reference = refiner_pipe(**settings, image=latents, denoising_start=0.6).images
    assert torch.equal(latents_of(smallest, one), reference)
    assert not torch.equal(latents_of(smallest, spec(refiner=refiner)), reference)


@pytest.mark.parametrize("handoff", ["lossless", "diffusers"])
def test_the_refiner_may_have_its_own_guidance_and_prompts(smallest, smallest_diffusers_pair, handoff):
    own = {"guidance_scale": 2.5, "prompt": "sharp fur", "negative_prompt": "soft"}
    one = spec(refiner={**own, "start": 0.6, "handoff": handoff}, negative_prompt="dark")
    base, refiner = smallest_diffusers_pair
    base.scheduler = refiner.scheduler = diffusers.EulerDiscreteScheduler.from_config(smallest.scheduler_config)
    settings = {"num_inference_steps": 5, "generator": torch.Generator("cpu").manual_seed(7), "output_type": "latent"}
    latents = base("a red fox", negative_prompt="dark", **settings, guidance_scale=5.0, denoising_end=0.6,
                   height=64, width=64).images  # fmt: skip
    reference = refiner(**own, **settings, image=latents, denoising_start=0.6).images
    assert torch.equal(latents_of(smallest, one), reference)


def test_one_side_alone_may_be_guided(smallest):
    unguided = spec(refiner={"start": 0.6, "guidance_scale": 1})
    scale_of_nobody = spec(refiner={"start": 0.6, "guidance_scale": 0.5})
    assert torch.equal(latents_of(smallest, unguided), latents_of(smallest, scale_of_nobody))
    assert not torch.equal(latents_of(smallest, unguided), latents_of(smallest, spec(refiner={"start": 0.6})))


def test_what_differs_from_image_to_image_is_told_to_each(tiny):
    fields = {"num_inference_steps": 4, "refiner": {"start": 0.5}}
    scored = {"refiner": {"start": 0.5, "aesthetic_score": 9, "prompt": "fur"}}
    specs = [spec(**fields), spec(**fields, **NEGATIVE_SIZES), spec(**fields, **SIZES), spec(**fields | scored)]
    together = latents_of(tiny, *specs)
    for place, one in enumerate(specs):
        assert (latents_of(tiny, one)[0] - together[place]).abs().max() < 2e-5
        others = [other for other in specs if other is not one]
        assert min((latents_of(tiny, other)[0] - together[place]).abs().max() for other in others) > 2e-5


def test_a_clip_skip_deeper_than_the_encoder_is_refused(tiny):
    assert latents_of(tiny, spec(clip_skip=1)).isfinite().all()
    with pytest.raises(SpecError, match="clip_skip: 2: pair 'tiny' has layers for 1 at the most"):
        render(tiny, [spec(clip_skip=2)])


def test_a_score_for_a_refiner_that_takes_none_is_refused(tiny):
    parts = tiny.refiner.components
    unscored = diffusers.StableDiffusionXLImg2ImgPipeline(
        **parts, requires_aesthetics_score=False, add_watermarker=False
    )
    with pytest.raises(SpecError, match=r"refiner.aesthetic_score: the refiner of pair 'tiny' takes no"):
        render(replace(tiny, refiner=unscored), [spec(refiner={"aesthetic_score": 5})])


@pytest.mark.parametrize(
    "wrong",
    [
        {"prompt": "a blue car"},
        {"negative_prompt": "dark"},
        {"seed": 8},
        {"guidance_scale": 5.5},
        {"num_inference_steps": 6},
        {"refiner": {"start": 0.5}},
        {"refiner": {"aesthetic_score": 5.0}},
        {"refiner": {"negative_aesthetic_score": 3.0}},
    ],
)
def test_the_comparison_sees_a_wrong_input(smallest, smallest_diffusers_pair, wrong):
    reference = by_diffusers(smallest_diffusers_pair, spec(), output_type="latent")
    assert torch.equal(latents_of(smallest, spec()), reference)
    assert not torch.equal(latents_of(smallest, spec(**wrong)), reference)


def test_the_refiner_goes_on_with_the_generator_of_the_base(smallest, smallest_diffusers_pair):
    one = spec(scheduler="EulerAncestralDiscreteScheduler", refiner={"start": 0.5})
    latents = latents_of(smallest, one)
    assert torch.equal(latents, by_diffusers(smallest_diffusers_pair, one, output_type="latent"))
    assert not torch.equal(
        latents, by_diffusers(smallest_diffusers_pair, one, output_type="latent", refiner_seed=one.seed)
    )


def test_a_long_prompt_is_rendered_whole(tiny, diffusers_pair):
    one = spec(prompt=LONG, negative_prompt="blurry")
    with torch.inference_mode():
        found = CompelForSDXL(diffusers_pair[0])(one.prompt, negative_prompt=one.negative_prompt)
    embeds = (_base_embeds(found), _refiner_embeds(diffusers_pair[1], one))
    picture = render(tiny, [one]).images[0]
    assert difference(picture, by_diffusers(diffusers_pair, one, embeds=embeds)[0]) == 0
    assert difference(picture, by_diffusers(diffusers_pair, one)[0]) > 0  # which cuts it at 77 tokens


def test_compel_weights_change_the_picture_as_compel_does_it(tiny, diffusers_pair):
    fields = {"prompt": "a (red)+++ fox in the (snow)0.3", "negative_prompt": "(blurry)+"}
    weighted, plain = spec(**fields, prompt_syntax="compel"), spec(**fields)
    with torch.inference_mode():
        found = CompelForSDXL(diffusers_pair[0])(weighted.prompt, negative_prompt=weighted.negative_prompt)
    embeds = (_base_embeds(found), _refiner_embeds(diffusers_pair[1], weighted))
    picture = render(tiny, [weighted]).images[0]
    assert difference(picture, by_diffusers(diffusers_pair, weighted, embeds=embeds)[0]) == 0
    assert difference(picture, render(tiny, [plain]).images[0]) > 0


def _base_embeds(found):
    return {
        "prompt_embeds": found.embeds,
        "pooled_prompt_embeds": found.pooled_embeds,
        "negative_prompt_embeds": found.negative_embeds,
        "negative_pooled_prompt_embeds": found.negative_pooled_embeds,
    }


def _refiner_embeds(refiner, one):
    compel = Compel(
        tokenizer=refiner.tokenizer_2,
        text_encoder=refiner.text_encoder_2,
        returned_embeddings_type=ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED,
        requires_pooled=True,
        truncate_long_prompts=False,
    )
    with torch.inference_mode():
        hidden, pooled = compel([one.prompt, one.negative_prompt])
    return {
        "prompt_embeds": hidden[:1],
        "pooled_prompt_embeds": pooled[:1],
        "negative_prompt_embeds": hidden[1:],
        "negative_pooled_prompt_embeds": pooled[1:],
    }


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_an_image_does_not_depend_on_its_neighbours(smallest, scheduler):
    fields = {"scheduler": scheduler, "num_inference_steps": 3, "refiner": {"start_step": 2}}
    one = spec(**fields, negative_prompt="blurry")
    others = [spec(**fields, seed=2**64 - 1 - place, prompt=f"number {place}") for place in range(4)]
    passes = [latents_of(smallest, *others[:place], one, *others[place + 1 :]) for place in range(4)]
    assert all(torch.equal(passes[0][0], latents[place]) for place, latents in enumerate(passes))
    assert not torch.equal(passes[0][0], passes[0][1])
    assert torch.equal(passes[0][3], passes[1][3])


@pytest.mark.parametrize("num_threads", [1, 2, 4])
def test_with_threads_too_an_image_does_not_depend_on_its_place(tiny, num_threads):
    """Passes are powers of two, and so are the threads of a worker on a CPU; with 3 images or threads this fails."""
    one = spec(width=128, height=128, num_inference_steps=2, refiner={"start_step": 1})
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(num_threads)
        for size in (2, 4, 8):
            latents = latents_of(tiny, *[one] * size)
            assert all(torch.equal(latents[0], other) for other in latents)
    finally:
        torch.set_num_threads(before)


def test_a_pass_renders_every_image_of_it(tiny):
    specs = [spec(seed=seed, prompt=prompt) for seed, prompt in ((1, "a fox"), (2, "a fox"), (1, "a car"))]
    together = render(tiny, specs).images
    alone = [render(tiny, [one]).images[0] for one in specs]
    assert [difference(*pair) <= 1 for pair in zip(together, alone, strict=True)] == [True] * 3
    assert difference(together[0], together[1]) > 1
    assert difference(together[0], together[2]) > 1


def test_schedulers_leave_nothing_behind_for_the_next_pass(smallest):
    before = latents_of(smallest, spec())
    for scheduler in SCHEDULERS:
        render(smallest, [spec(scheduler=scheduler, refiner={"start": 0.5})])
    assert torch.equal(latents_of(smallest, spec()), before)


@pytest.mark.parametrize(
    ("fields", "steps"),
    [
        ({}, (4, 1)),
        ({"num_inference_steps": 40}, (32, 8)),
        ({"num_inference_steps": 40, "refiner": {"handoff": "diffusers"}}, (32, 8)),
        ({"num_inference_steps": 40, "scheduler": "euler karras"}, (25, 15)),
        ({"num_inference_steps": 40, "refiner": {"start_step": 33}}, (33, 7)),
        ({"num_inference_steps": 25, "refiner": {"start_percent": 90}}, (23, 2)),
        ({"refiner": {"start": 0.5, "handoff": "diffusers"}, "num_inference_steps": 10, "scheduler": "heun"}, (4, 6)),
        ({"refiner": {"mode": "off"}}, (5, 0)),
        ({"refiner": {"start": 0.3}}, (1, 4)),
        ({"num_inference_steps": 1, "refiner": {"mode": "off"}}, (1, 0)),
    ],
)
def test_the_steps_that_ran_are_counted(smallest, fields, steps):
    rendered = render(smallest, [spec(**fields)])
    assert (rendered.base_steps, rendered.refiner_steps) == steps
    assert rendered.images[0] is not None


def test_the_sigma_of_the_handoff_is_the_schedulers(smallest):
    rendered = render(smallest, [spec(num_inference_steps=10)])
    scheduler = diffusers.EulerDiscreteScheduler.from_config(smallest.scheduler_config)
    scheduler.set_timesteps(10)
    assert rendered.handoff_sigma == scheduler.sigmas[8].item()
    assert math.isclose(rendered.handoff_sigma, (1 / scheduler.alphas_cumprod[101].item() - 1) ** 0.5, rel_tol=1e-4)


def test_no_sigma_is_given_where_there_is_no_refiner(smallest):
    assert render(smallest, [spec(refiner={"mode": "off"})]).handoff_sigma is None


@pytest.mark.parametrize(
    "other",
    [
        {"guidance_scale": 6.0},
        {"width": 72},
        {"prompt": LONG},
        {"refiner": {"mode": "off"}},
        {"scheduler": "euler karras"},
    ],
)
def test_specs_that_cannot_share_a_pass_are_refused(smallest, other):
    with pytest.raises(ValueError, match="one kind"):
        render(smallest, [spec(), spec(**other)])


def test_an_empty_pass_is_refused(smallest):
    with pytest.raises(ValueError, match="one kind"):
        render(smallest, [])


def test_a_pair_without_refiner_renders_the_base_alone_and_says_so(tiny_folder, model_cache, tiny):
    alone = load_pair(BUILT_IN_PAIRS["tiny"].model_copy(update={"refiner": None}), "cpu", model_cache)
    off = spec(refiner={"mode": "off"})
    assert difference(render(alone, [off]).images[0], render(tiny, [off]).images[0]) == 0
    with pytest.raises(SpecError, match="no refiner"):
        render(alone, [spec()])


@pytest.mark.parametrize("calls_before", [0, 3, 4])
def test_a_pack_that_was_taken_back_stops_at_the_next_step(smallest, calls_before):
    calls = []

    def stop():
        calls.append(None)
        return len(calls) > calls_before

    with pytest.raises(LeaseLostError):
        render(smallest, [spec()], stop)  # 4 steps of the base, 1 of the refiner
    assert len(calls) == calls_before + 1


def _raising(error):
    def stop():
        raise error

    return stop


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"),
        MemoryError("Unable to allocate 2.00 GiB for an array"),
        torch.AcceleratorError("CUDA error: out of memory\nmore lines"),
        RuntimeError("backend='inductor' raised:\nOutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"),
    ],
)
def test_out_of_memory_holds_no_tensors_and_the_worker_goes_on(tiny, error):
    with pytest.raises(DeviceMemoryError, match="no memory for a forward pass of 1 image of 64 x 64") as caught:
        render(tiny, [spec()], _raising(error))
    assert caught.value.__context__ is None  # its traceback would hold the tensors of every frame
    assert render(tiny, [spec()]).images[0] is not None


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nmore lines"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling cublasGemmEx"),
    ],
)
def test_a_device_error_says_that_the_device_is_lost(tiny, error):
    with pytest.raises(DeviceLostError, match="cpu failed: ") as caught:
        render(tiny, [spec()], _raising(error))
    assert "\n" not in str(caught.value)


def test_other_errors_stay_what_they_are(tiny):
    with pytest.raises(RuntimeError, match="our own mistake"):
        render(tiny, [spec()], _raising(RuntimeError("our own mistake")))


def test_a_picture_with_nan_is_none_and_its_neighbours_are_not(tiny):
    nan = spec(prompt='("a fox", "a wolf").blend(1, -1)', prompt_syntax="compel")  # weights that add up to zero
    rendered = render(tiny, [spec(), nan, spec(seed=8)])
    assert [image is None for image in rendered.images] == [False, True, False]


def test_a_picture_with_infinite_values_is_none(tiny):
    bias = tiny.base.vae.decoder.conv_out.bias
    kept = bias.detach().clone()
    try:
        bias.data[1] = math.inf
        assert render(tiny, [spec()]).images == [None]
    finally:
        bias.data.copy_(kept)
    assert render(tiny, [spec()]).images[0] is not None


@pytest.mark.filterwarnings("ignore:`upcast_vae` is deprecated:FutureWarning")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_decoded_as_diffusers_does_it(tiny, tiny_folder, model_cache, dtype):
    half = load_pair(BUILT_IN_PAIRS["tiny"].model_copy(update={"dtype": dtype}), "cpu", model_cache)
    options = {"add_watermarker": False, "dtype": getattr(torch, dtype)}
    base = diffusers.StableDiffusionXLPipeline.from_pretrained(tiny_folder / "base", **options)
    refiner = diffusers.StableDiffusionXLImg2ImgPipeline.from_pretrained(
        tiny_folder / "refiner", text_encoder_2=base.text_encoder_2, vae=base.vae, **options
    )
    picture = render(half, [spec()]).images[0]
    assert difference(picture, by_diffusers((base, refiner), spec())[0]) == 0
    assert difference(picture, render(tiny, [spec()]).images[0]) > 0


@pytest.mark.parametrize("fields", [{"num_inference_steps": 1}, {"refiner": {"start": 0.999}}])
def test_a_handoff_that_leaves_a_side_without_a_step_is_refused(tiny, fields):
    with pytest.raises(SpecError, match="each needs one"):
        render(tiny, [spec(**fields)])
