import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, PNDMScheduler
from PIL import Image
from safetensors.torch import load_file
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from schemas.errors import PairError
from tests.fork_server import Request
from worker.synthetic_pairs.synthetic import (
    SYNTHETIC_SIZES,
    SYNTHETIC_VERSION,
    base_unet,
    build_synthetic_pair,
    refiner_unet,
    synthetic_pair_folder,
)
from worker.synthetic_pairs.synthetic_tokenizer import synthetic_tokenizers

REPOSITORY = Path(__file__).parents[2]
SIDES = ("base", "refiner")
PROMPT = "a red fox in the snow"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("pairs")


@pytest.fixture(scope="module")
def pair(cache):
    return synthetic_pair_folder("tiny", cache)


@pytest.fixture(scope="module")
def pipelines(pair):
    return load(pair / "base"), load(pair / "refiner")


@pytest.fixture(scope="module")
def rendered(pipelines):
    """Latents of the base and of the refiner for the usual inputs."""
    return latents(pipelines)


@pytest.fixture(scope="module")
def pixels(pipelines, rendered):
    """float32, 0 to 1 where nothing is clipped."""
    decoder = pipelines[1].vae
    with torch.no_grad():
        return decoder.decode(rendered[1] / decoder.config.scaling_factor).sample / 2 + 0.5


def load(folder):
    pipeline = DiffusionPipeline.from_pretrained(folder, use_safetensors=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def hashes(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def latents(pipelines, prompt=PROMPT, aesthetic_score=6.0, seed=0):
    base, refiner = pipelines
    shared = {"prompt": prompt, "num_inference_steps": 5, "output_type": "latent"}
    generator = torch.Generator().manual_seed(seed)
    composed = base(**shared, denoising_end=0.6, height=64, width=64, generator=generator).images
    refined = refiner(
        **shared, denoising_start=0.6, image=composed, aesthetic_score=aesthetic_score, generator=generator
    )
    return composed, refined.images


@pytest.mark.xdist_group("forked")
def test_two_processes_at_once_make_one_pair_with_the_bytes_of_every_other_process(pair, tmp_path, fork_server):
    folder, log = tmp_path / "pairs", str(tmp_path / "log")
    folder.mkdir()
    fork_server.wait()
    request = Request("tests.unit.pair_maker", [str(folder)], dict(os.environ), str(REPOSITORY), log, log)
    makers = [fork_server.fork(request) for _ in range(2)]
    assert [maker.wait(300) for maker in makers] == [0, 0], Path(log).read_text()
    assert hashes(folder / pair.name) == hashes(pair)
    assert sorted(path.name for path in folder.iterdir()) == [pair.name, f"{pair.name}.lock"]


def test_threads_at_once_make_one_pair(tmp_path, pair):
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: synthetic_pair_folder("tiny", tmp_path), range(4)))
    assert folders == {tmp_path / f"tiny-{SYNTHETIC_VERSION}"}
    assert hashes(folders.pop()) == hashes(pair)


def test_a_pair_is_made_once_and_then_only_found(cache, pair):
    before = (pair / "base" / "model_index.json").stat()
    assert synthetic_pair_folder("tiny", cache) == pair
    assert (pair / "base" / "model_index.json").stat() == before


def test_what_a_killed_process_left_is_replaced(tmp_path, pair):
    left = tmp_path / f"tiny-{SYNTHETIC_VERSION}.partial" / "base"
    left.mkdir(parents=True)
    (left / "half.safetensors").write_bytes(b"half")
    assert hashes(synthetic_pair_folder("tiny", tmp_path)) == hashes(pair)


def test_an_unknown_size_is_refused_and_the_known_ones_are_named(tmp_path):
    with pytest.raises(PairError, match="'huge'; known are full, tiny"):
        synthetic_pair_folder("huge", tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_another_seed_gives_every_network_other_weights(tmp_path, pair):
    build_synthetic_pair(SYNTHETIC_SIZES["tiny"], tmp_path, seed=1)
    ours, theirs = hashes(pair), hashes(tmp_path)
    same = {name for name in ours if ours[name] == theirs[name]}
    assert ours.keys() == theirs.keys()
    assert same == {name for name in ours if not name.endswith(".safetensors")}


def test_base_and_refiner_share_encoder_and_vae_but_not_the_unet(pair):
    for part in ("text_encoder_2/model.safetensors", "vae/diffusion_pytorch_model.safetensors"):
        assert (pair / "base" / part).samefile(pair / "refiner" / part)
    base, refiner = (load_file(pair / side / "unet" / "diffusion_pytorch_model.safetensors") for side in SIDES)
    alike = [name for name in base if base[name].ndim > 1 and base[name].shape == refiner[name].shape]
    assert {name for name in alike if torch.equal(base[name], refiner[name])} == {"conv_in.weight"}


def test_plain_diffusers_loads_sdxl_pipelines_with_sdxls_options(pipelines):
    base, refiner = pipelines
    assert type(base).__name__ == "StableDiffusionXLPipeline"
    assert type(refiner).__name__ == "StableDiffusionXLImg2ImgPipeline"
    assert refiner.config.requires_aesthetics_score
    assert base.config.force_zeros_for_empty_prompt
    assert not refiner.config.force_zeros_for_empty_prompt
    assert refiner.tokenizer is None
    assert refiner.text_encoder is None
    assert base.vae.config.scaling_factor == 0.13025
    assert base.vae.config.force_upcast


def test_the_scheduler_config_is_sdxls_own(pair):
    config = json.loads((pair / "base" / "scheduler" / "scheduler_config.json").read_text())
    assert config.pop("_diffusers_version")
    assert config == {
        "_class_name": "EulerDiscreteScheduler",
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "clip_sample": False,
        "interpolation_type": "linear",
        "num_train_timesteps": 1000,
        "prediction_type": "epsilon",
        "sample_max_value": 1.0,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
        "timestep_spacing": "leading",
        "trained_betas": None,
        "use_karras_sigmas": False,
    }


def test_other_schedulers_see_the_keys_that_are_not_eulers(pipelines):
    config = pipelines[0].scheduler.config
    assert PNDMScheduler.from_config(config).config.skip_prk_steps
    assert not DDIMScheduler.from_config(config).config.clip_sample
    assert not DDIMScheduler.from_config(config).config.set_alpha_to_one


def test_a_picture_is_finite_has_contrast_and_is_rarely_clipped(pixels):
    assert pixels.shape == (1, 3, 64, 64)
    assert pixels.isfinite().all()
    assert pixels.std() > 0.05
    assert ((pixels < 0) | (pixels > 1)).float().mean() < 0.1


def test_neighbouring_pixels_are_alike_as_in_a_picture_and_not_as_in_noise(pixels):
    assert (pixels.diff(dim=-1).std() / pixels.std()) < 0.3  # 1.41 for noise, 0.41 with kernels of noise


@pytest.mark.parametrize("side", [0, 1], ids=SIDES)
def test_a_unet_predicts_mostly_the_noise_that_it_is_given(pipelines, side):
    unet = pipelines[side].unet
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    text = torch.randn(1, 77, unet.config.cross_attention_dim, generator=torch.Generator().manual_seed(1))
    conditions = {"text_embeds": torch.zeros(1, 32), "time_ids": torch.full((1, 6 - side), 64.0)}
    with torch.no_grad():
        predicted = unet(noise, 500, text, added_cond_kwargs=conditions).sample
    assert torch.corrcoef(torch.stack([noise.flatten(), predicted.flatten()]))[0, 1] > 0.5


@pytest.mark.parametrize("other", [{"prompt": "a blue car"}, {"aesthetic_score": 2.0}, {"seed": 1}])
def test_another_input_is_seen_in_the_latents(pipelines, rendered, other):
    difference = latents(pipelines, **other)[1] - rendered[1]
    assert difference.abs().mean() > 0.005


def test_the_refiner_changes_what_the_base_composed(rendered):
    composed, refined = rendered
    assert (refined - composed).abs().mean() > 0.05


def test_an_image_can_be_encoded_as_well(pipelines):
    noise = torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(0))
    image = Image.fromarray((noise * 255).byte().numpy())
    refined = pipelines[1](PROMPT, image=image, strength=0.5, num_inference_steps=4, output_type="latent").images
    assert refined.shape == (1, 4, 8, 8)
    assert refined.isfinite().all()


@pytest.mark.parametrize(
    ("prompt", "most_tokens"),
    [
        ("A young woman reading a book by the window while rain falls over the quiet streets of an old city", 28),
        ("a portrait of a dog wearing a blue hat and sitting on a wooden chair in front of a green wall", 24),
    ],
)
def test_an_ordinary_prompt_of_twenty_words_takes_under_thirty_tokens(pair, prompt, most_tokens):
    tokenizer = CLIPTokenizer.from_pretrained(pair / "base" / "tokenizer")
    assert len(prompt.split()) in range(19, 22)
    assert len(tokenizer(prompt).input_ids) <= most_tokens


@pytest.mark.parametrize("text", ["Ünïcode", "日本の桜", "🎉 party 🎉", "don't!", "x²+y³", "\u202eabc\u0000"])
def test_every_text_has_tokens_and_none_is_the_unknown_one(pair, text):
    tokenizer = CLIPTokenizer.from_pretrained(pair / "base" / "tokenizer")
    tokens = tokenizer(text).input_ids[1:-1]
    assert tokens
    assert tokenizer.unk_token_id not in tokens
    spoken = tokenizer.decode(tokens).replace(" ", "")
    assert spoken == text.lower().replace(" ", "")


def test_words_are_lower_cased_and_end_in_a_mark(pair):
    tokenizer = CLIPTokenizer.from_pretrained(pair / "base" / "tokenizer")
    assert tokenizer.tokenize("A PAINTING") == ["a</w>", "painting</w>"]


def test_a_long_prompt_is_longer_than_77_tokens_until_it_is_cut(pair):
    tokenizer = CLIPTokenizer.from_pretrained(pair / "base" / "tokenizer")
    whole = tokenizer("a dog " * 100, verbose=False).input_ids
    cut = tokenizer("a dog " * 100, truncation=True).input_ids
    assert tokenizer.model_max_length == 77
    assert len(whole) == 202
    assert len(cut) == 77
    assert cut[-1] == whole[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize(("part", "pad_token"), [("tokenizer", "<|endoftext|>"), ("tokenizer_2", "!")])
def test_each_tokenizer_pads_as_sdxls_does(pair, part, pad_token):
    tokenizer = CLIPTokenizer.from_pretrained(pair / "base" / part)
    tokens = tokenizer("a dog", padding="max_length").input_ids
    assert len(tokens) == 77
    assert tokenizer.convert_ids_to_tokens(tokens[:5]) == [
        "<|startoftext|>",
        "a</w>",
        "dog</w>",
        "<|endoftext|>",
        pad_token,
    ]


def test_the_pooled_output_is_that_of_the_first_end_token(pair):
    tokenizer = CLIPTokenizer.from_pretrained(pair / "base" / "tokenizer_2")
    encoder = CLIPTextModelWithProjection.from_pretrained(pair / "base" / "text_encoder_2")
    tokens = tokenizer("a dog", padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        output = encoder(tokens)
        at_the_end = encoder.text_projection(output.last_hidden_state[:, 3])
    assert encoder.config.eos_token_id == tokenizer.eos_token_id != 2
    assert torch.equal(output.text_embeds, at_the_end)


def test_the_full_tokenizer_has_clips_number_of_tokens_with_start_and_end_last():
    tokenizer, _ = synthetic_tokenizers(SYNTHETIC_SIZES["full"].vocabulary_size)
    assert len(tokenizer) == 49408
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (49406, 49407)


def test_the_full_unets_have_the_number_of_parameters_of_sdxls():
    full = SYNTHETIC_SIZES["full"]
    assert base_unet(full).num_parameters() == 2_567_463_684
    assert refiner_unet(full).num_parameters() == 2_259_526_660
