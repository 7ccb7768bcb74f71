"""Every kind of rendering against plain diffusers code: equal in a pass of one, nearly so in a pass of eight.

On the CPU in float32; where there is a GPU, `make test-gpu` runs the same on it in float32 and in float16.
"""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline

from schemas.pair import BUILT_IN_PAIRS
from schemas.spec import JobSpec
from tests.unit.plain_diffusers import PlainPair, Reference
from worker.loading.pipelines import LoadedPair, load_pair
from worker.passes.rendering import denoise, render

KINDS = {
    "base": {"refiner": {"mode": "off"}},
    "ensemble": {"refiner": {"start": 0.5, "handoff": "diffusers"}},
    "two stages": {"refiner": {"mode": "img2img", "strength": 0.5}},
}
LONG = "a red fox in the snow, with long whiskers and a bushy tail. it looks at the moon; the trees are dark. " * 4
TEXTS = {
    "plain": {"prompt": "a red fox", "negative_prompt": "blurry"},
    "weights": {"prompt": "a (red)+++ fox in the (snow)0.3", "negative_prompt": "(dark)+", "prompt_syntax": "compel"},
    "blend": {"prompt": '("a fox", "a wolf").blend(0.7, 0.3)', "negative_prompt": "dark", "prompt_syntax": "compel"},
    "long": {"prompt": LONG, "negative_prompt": "blurry"},
}
SIZES = [(64, 96), (96, 64), (72, 104), (128, 64), (104, 88)]
SCHEDULERS = ["euler a", "dpm++ 2m karras", "heun", "ddim", "dpm++ sde"]
#: a solver of second order begins and ends with steps of first order
FOUR_STEPS = {"num_inference_steps": 4}
CASES = [
    *(pytest.param(TEXTS[text] | KINDS[kind], id=f"{kind}, {text}") for kind in KINDS for text in TEXTS),
    *(pytest.param(TEXTS["plain"] | KINDS["ensemble"] | {"width": width, "height": height}, id=f"{width}x{height}")
      for width, height in SIZES),
    *(pytest.param(TEXTS["plain"] | KINDS[kind] | FOUR_STEPS | {"scheduler": name}, id=f"{kind}, {name}")
      for kind in KINDS for name in SCHEDULERS),
]  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """A pair of ours, the same weights in plain pipelines, and how far a pass of eight may be from a pass of one:
    latents, and the share of a picture's values that are off by more than 1 of 255."""

    ours: LoadedPair
    plain: PlainPair
    latents: float
    pictures: float


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(("cpu", "float32", 1e-3, 1e-4), id="cpu float32"),
        pytest.param(("cuda", "float32", 1e-3, 1e-4), id="cuda float32", marks=pytest.mark.gpu),
        pytest.param(("cuda", "float16", 5e-2, 0.05), id="cuda float16", marks=pytest.mark.gpu),
    ],
)
def subject(request, tiny, diffusers_pair, tiny_folder, model_cache):
    device, dtype, *tolerances = request.param
    if device == "cpu":
        yield Subject(tiny, PlainPair(*diffusers_pair, tiny.scheduler_config), *tolerances)
        return
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device here; `make test-gpu` is for machines with one")
    pair = load_pair(BUILT_IN_PAIRS["tiny"].model_copy(update={"dtype": dtype}), device, model_cache)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.backends.cudnn, "allow_tf32", False)  # half of float32's digits, and rounded by the pass
        yield Subject(pair, _plain(tiny_folder, getattr(torch, dtype), pair), *tolerances)


def _plain(folder, dtype, pair):
    options = {"use_safetensors": True, "add_watermarker": False, "dtype": dtype}
    base = StableDiffusionXLPipeline.from_pretrained(folder / "base", **options).to("cuda")
    shared = {"text_encoder_2": base.text_encoder_2, "vae": base.vae}
    refiner = StableDiffusionXLImg2ImgPipeline.from_pretrained(folder / "refiner", **shared, **options).to("cuda")
    for pipe in (base, refiner):
        pipe.set_progress_bar_config(disable=True)
    return PlainPair(base, refiner, pair.scheduler_config, "cuda")


def spec(fields, **others):
    return JobSpec.parse({"width": 64, "height": 64, "num_inference_steps": 2, "seed": 7} | fields | others)


def latents_of(subject, *specs):
    return denoise(subject.ours, specs, lambda: False).latents


def distance(left, right):
    return (left.float() - right.float()).abs().max().item()


@pytest.mark.parametrize("fields", CASES)
def test_a_pass_of_one_is_what_diffusers_renders_and_so_is_one_of_eight_but_for_rounding(subject, fields):
    eight = [spec(fields, seed=seed) for seed in range(8)]
    reference = Reference(subject.plain).render(eight[5])
    assert reference.isfinite().all()
    assert torch.equal(latents_of(subject, eight[5])[0], reference)
    assert distance(latents_of(subject, *eight)[5], reference) < subject.latents
    for wrong in _wrong_inputs(subject.plain, eight[5]):
        assert distance(wrong, reference) > subject.latents


def _wrong_inputs(plain, one):
    """What the tolerance must not let through: another prompt, and where they are possible another score, a chunk."""
    yield Reference(plain).render(one.model_copy(update={"prompt": one.prompt.replace("fox", "car")}))
    if one.refiner.mode != "off":
        yield Reference(plain, refiner_options={"aesthetic_score": 1.0, "negative_aesthetic_score": 9.0}).render(one)
    if one.prompt_syntax == "compel" or one.prompt == LONG:
        yield Reference(plain, padding_chunks=1).render(one)


@pytest.mark.parametrize("kind", KINDS)
def test_the_pictures_of_a_pass_of_eight_are_those_of_diffusers(subject, kind):
    eight = [spec(TEXTS["plain"] | KINDS[kind], seed=seed, num_inference_steps=2) for seed in range(8)]
    pictures = render(subject.ours, eight).images
    references = [np.asarray(Reference(subject.plain, output_type="pil").render(one)) for one in eight]
    for picture, reference in zip(pictures, references, strict=True):
        far = np.abs(picture.astype(int) - reference.astype(int)) > 1
        assert far.mean() <= subject.pictures
    assert (np.abs(pictures[1].astype(int) - references[0].astype(int)) > 1).mean() > 2 * subject.pictures
