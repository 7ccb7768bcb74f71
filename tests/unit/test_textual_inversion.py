"""Textual inversions, held against diffusers' own ``load_textual_inversion`` as its documentation shows it for SDXL."""

import numpy as np
import pytest
import torch
from compel import CompelForSDXL
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file

from schemas.errors import PairError
from schemas.pair import BUILT_IN_PAIRS, TextualInversion
from schemas.spec import JobSpec
from worker.environment import environment
from worker.loading.pipelines import load_pair
from worker.passes.embedding import num_chunks
from worker.passes.rendering import denoise, render

TINY = BUILT_IN_PAIRS["tiny"]
WIDTH = 32  # of both encoders of the tiny pair


def vectors(number, seed):
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.randn(number, WIDTH, generator=generator) for key in ("clip_l", "clip_g")}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A token of one vector, and one of two."""
    folder = tmp_path_factory.mktemp("inversions")
    for name, number in (("one", 1), ("two", 2)):
        save_file(vectors(number, seed=number), folder / f"{name}.safetensors")
    return folder


def pair_with(*inversions):
    return TINY.model_copy(update={"textual_inversions": inversions})


def inversion(path, token):
    return TextualInversion(source=str(path), token=token)


@pytest.fixture(scope="module")
def taught(files, model_cache):
    inversions = [inversion(files / f"{name}.safetensors", f"<{name}>") for name in ("one", "two")]
    return load_pair(pair_with(*inversions), "cpu", model_cache)


@pytest.fixture(scope="module")
def by_diffusers(files, tiny_folder):
    base = StableDiffusionXLPipeline.from_pretrained(tiny_folder / "base", add_watermarker=False)
    for name in ("one", "two"):
        found = load_file(files / f"{name}.safetensors")
        for key, suffix in (("clip_l", ""), ("clip_g", "_2")):
            base.load_textual_inversion(
                found[key],
                token=f"<{name}>",
                text_encoder=getattr(base, f"text_encoder{suffix}"),
                tokenizer=getattr(base, f"tokenizer{suffix}"),
            )
    shared = {name: getattr(base, name) for name in ("text_encoder_2", "tokenizer_2", "vae")}
    refiner = StableDiffusionXLImg2ImgPipeline.from_pretrained(tiny_folder / "refiner", add_watermarker=False, **shared)
    for pipe in (base, refiner):
        pipe.set_progress_bar_config(disable=True)
    return base, refiner


def spec(prompt, **fields):
    return JobSpec.parse(
        {"prompt": prompt, "width": 64, "height": 64, "num_inference_steps": 2, "seed": 7, "refiner": {"start": 0.5}}
        | fields
    )


def latents_of(pair, one):
    return denoise(pair, [one], lambda: False).latents


def reference(pipes, one):
    base, refiner = pipes
    generator = torch.Generator("cpu").manual_seed(one.seed)
    told = {"prompt": one.prompt, "negative_prompt": one.negative_prompt, "generator": generator,
            "num_inference_steps": 2, "guidance_scale": one.guidance_scale}  # fmt: skip
    latents = base(**told, height=64, width=64, denoising_end=0.5, output_type="latent").images
    return refiner(**told, image=latents, denoising_start=0.5, output_type="latent").images


@pytest.mark.parametrize(
    ("prompt", "negative"),
    [
        ("a <one> fox", None),
        ("a <two> fox", ""),
        ("a fox, <one>,<two>", "<two>"),
        ("a fox", "<one> blurry"),
    ],
)
def test_a_prompt_with_a_learned_token_is_rendered_as_diffusers_does_it(tiny, taught, by_diffusers, prompt, negative):
    one = spec(prompt, negative_prompt=negative)
    found = latents_of(taught, one)
    assert torch.equal(found, reference(by_diffusers, one))
    assert not torch.equal(found, latents_of(tiny, one))


def test_a_prompt_without_a_learned_token_is_rendered_as_before(tiny, taught):
    one = spec("a red fox", negative_prompt="dark")
    assert torch.equal(latents_of(taught, one), latents_of(tiny, one))
    assert (render(taught, [one]).images[0] == render(tiny, [one]).images[0]).all()


def test_every_vector_of_a_token_is_read(taught, files, tmp_path, model_cache):
    found = load_file(files / "two.safetensors")
    found = {key: torch.stack([value[0], -value[1]]) for key, value in found.items()}
    save_file(found, tmp_path / "two.safetensors")
    other = load_pair(pair_with(inversion(tmp_path / "two.safetensors", "<two>")), "cpu", model_cache)
    assert not torch.equal(latents_of(other, spec("a <two> fox")), latents_of(taught, spec("a <two> fox")))


def test_compel_weighs_all_vectors_of_a_token(taught, by_diffusers):
    one = spec("a (<two>)1.3 fox", prompt_syntax="compel", refiner={"mode": "off"}, num_inference_steps=1)
    with torch.inference_mode():
        found = CompelForSDXL(by_diffusers[0])("a (<two> <two>_1)1.3 fox", negative_prompt="")
    base = by_diffusers[0]
    generator = torch.Generator("cpu").manual_seed(one.seed)
    expected = base(
        prompt_embeds=found.embeds,
        pooled_prompt_embeds=found.pooled_embeds,
        negative_prompt_embeds=found.negative_embeds,
        negative_pooled_prompt_embeds=found.negative_pooled_embeds,
        num_inference_steps=1, guidance_scale=one.guidance_scale, height=64, width=64, generator=generator,
        output_type="latent",
    ).images  # fmt: skip
    assert torch.equal(latents_of(taught, one.model_copy(update={"negative_prompt": ""})), expected)


def test_every_vector_is_a_token_when_chunks_are_counted(tiny, taught):
    texts = {"fox " * 74 + "<one>": 1, "fox " * 75 + "<one>": 2, "fox " * 73 + "<two>": 1, "fox " * 74 + "<two>": 2}
    assert [num_chunks(taught, spec(text)).base for text in texts] == list(texts.values())
    assert num_chunks(tiny, spec("fox " * 73 + "<two>")).base == 2  # letter by letter


def test_the_refiner_knows_the_token_through_what_it_shares(taught):
    assert taught.refiner.tokenizer_2 is taught.base.tokenizer_2
    assert {"<one>", "<two>", "<two>_1"} <= taught.refiner.tokenizer_2.get_vocab().keys()
    for tokenizer, encoder in (
        (taught.base.tokenizer, taught.base.text_encoder),
        (taught.base.tokenizer_2, taught.base.text_encoder_2),
    ):
        assert len(tokenizer) == len(encoder.get_input_embeddings().weight)


def test_content_and_token_are_in_the_fingerprint_and_the_place_is_not(tiny, files, tmp_path, model_cache):
    def fingerprint(name, token):
        return load_pair(pair_with(inversion(name, token)), "cpu", model_cache).fingerprint

    moved = tmp_path / "moved.safetensors"
    moved.write_bytes((files / "one.safetensors").read_bytes())
    first = fingerprint(files / "one.safetensors", "<one>")
    assert fingerprint(moved, "<one>") == first
    others = [fingerprint(files / "two.safetensors", "<one>"), fingerprint(moved, "<other>"), tiny.fingerprint]
    assert first.sha256 not in {other.sha256 for other in others}


def test_the_environment_names_tokens_and_files(taught, tiny):
    hashes = taught.fingerprint.textual_inversion_hashes
    assert environment(taught).textual_inversions == {"<one>": hashes[0], "<two>": hashes[1]}
    assert environment(tiny).textual_inversions == {}


def refusal(pair, cache):
    with pytest.raises(PairError) as caught:
        load_pair(pair, "cpu", cache)
    assert str(caught.value).startswith(f"pair 'tiny': {pair.textual_inversions[-1].source} does not load: ")
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"clip_l": torch.zeros(1, WIDTH)}, "it has no clip_g, as SDXL's textual inversions have beside clip_l"),
        ({"emb_params": torch.zeros(1, WIDTH)}, "it has no clip_l, as SDXL's textual inversions have beside emb_p"),
        ({"clip_l": torch.zeros(1, WIDTH), "clip_g": torch.zeros(1, 8)}, "its clip_g has the shape (1, 8), and the"),
        ({"clip_l": torch.zeros(2, 1, WIDTH), "clip_g": torch.zeros(2, WIDTH)}, "its clip_l has the shape (2, 1, 32)"),
        ({"clip_l": torch.zeros(1, WIDTH), "clip_g": torch.zeros(3, WIDTH)}, "1 vectors in clip_l and 3 in clip_g"),
    ],
)
def test_a_file_for_another_model_is_refused(tmp_path, model_cache, content, reason):
    save_file(content, tmp_path / "x.safetensors")
    assert reason in refusal(pair_with(inversion(tmp_path / "x.safetensors", "<x>")), model_cache)


def test_a_token_that_the_tokenizer_has_is_refused(files, model_cache):
    word = inversion(files / "one.safetensors", "a")
    assert "the tokenizer has the token 'a' already: choose another, such as '<a>'" in refusal(
        pair_with(word), model_cache
    )


def test_a_file_that_is_broken_or_missing_is_refused(tmp_path, model_cache):
    path = tmp_path / "x.safetensors"
    assert "there is no such file" in refusal(pair_with(inversion(path, "<x>")), model_cache)
    path.write_bytes(b"\x80\x04pickle")
    refusal(pair_with(inversion(path, "<x>")), model_cache)


def test_one_vector_may_come_without_its_row(files, tmp_path, taught, model_cache):
    flat = {key: value[0] for key, value in load_file(files / "one.safetensors").items()}
    save_file(flat, tmp_path / "flat.safetensors")
    pair = load_pair(pair_with(inversion(tmp_path / "flat.safetensors", "<one>")), "cpu", model_cache)
    assert np.array_equal(latents_of(pair, spec("a <one> fox")), latents_of(taught, spec("a <one> fox")))
