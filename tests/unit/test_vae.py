"""The pair's VAE: its dtype, slicing, tiling, and another one in its place. Held against diffusers' own."""

import copy
import json
import math
import shutil

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file

from schemas.errors import PairError
from schemas.pair import BUILT_IN_PAIRS, ModelPair, ModelSource
from schemas.spec import JobSpec
from worker.environment import environment
from worker.loading.pipelines import load_pair
from worker.passes.decoding import checked_pictures, decode, pictures
from worker.passes.rendering import render

TINY = BUILT_IN_PAIRS["tiny"]


def spec(**fields):
    fields = {"width": 64, "height": 64, "num_inference_steps": 1, "seed": 7, "refiner": {"mode": "off"}} | fields
    return JobSpec.parse({"prompt": "a red fox"} | fields)


def latents(side, images=1):
    return torch.randn(images, 4, side, side, generator=torch.Generator().manual_seed(1))


def base_alone(folder, **fields):
    return ModelPair(name="mine", base=ModelSource(source=str(folder)), **fields)


def edit_json(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def scale(vae_folder, key, factor):
    path = vae_folder / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights[key] = weights[key] * factor
    path.unlink()
    save_file(weights, path, metadata={"format": "pt"})


def by_diffusers(folder, one, vae=None, **options):
    passed = {} if vae is None else {"vae": vae}
    pipe = StableDiffusionXLPipeline.from_pretrained(folder, add_watermarker=False, **passed, **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def picture(pipe, one):
    generator = torch.Generator("cpu").manual_seed(one.seed)
    found = pipe(one.prompt, num_inference_steps=one.num_inference_steps, height=one.height, width=one.width,
                 guidance_scale=one.guidance_scale, generator=generator)  # fmt: skip
    return np.asarray(found.images[0])


def difference(left, right):
    return int(np.abs(left.astype(int) - right.astype(int)).max())


@pytest.fixture
def base(tiny_folder, tmp_path):
    """A copy of the tiny base that a test may spoil."""
    return shutil.copytree(tiny_folder / "base", tmp_path / "base")


@pytest.fixture
def other_vae(tiny_folder, tmp_path):
    """The folder of a VAE whose pictures are paler."""
    folder = shutil.copytree(tiny_folder / "base" / "vae", tmp_path / "other")
    scale(folder, "decoder.conv_out.weight", 0.5)
    return folder


def test_a_float16_pass_never_casts_the_shared_vae(tiny_folder, model_cache):
    pair = load_pair(TINY.model_copy(update={"dtype": "float16"}), "cpu", model_cache)
    before = [(id(tensor), tensor.data_ptr(), tensor.dtype) for tensor in pair.base.vae.parameters()]
    render(pair, [spec()])
    assert [(id(tensor), tensor.data_ptr(), tensor.dtype) for tensor in pair.base.vae.parameters()] == before
    assert {dtype for _, _, dtype in before} == {torch.float32}
    assert pair.base.vae is pair.refiner.vae


def test_a_vae_that_overflows_float16_gives_a_picture_all_the_same(base, tmp_path):
    scale(base / "vae", "decoder.conv_in.weight", 2.0**15)
    stock = AutoencoderKL.from_pretrained(base / "vae", dtype=torch.float16)
    with torch.inference_mode():
        assert not stock.decode(latents(4).half() / stock.config.scaling_factor).sample.isfinite().all()
    pair = load_pair(base_alone(base, dtype="float16"), "cpu", tmp_path)
    (found,) = pictures(pair.base.vae, latents(4).half())
    assert found is not None
    assert found.std() > 10


@pytest.mark.parametrize("offload", ["none", "sequential"])
def test_a_picture_that_overflows_float16_is_decoded_once_more_in_float32(base, tmp_path, offload):
    scale(base / "vae", "decoder.conv_in.weight", 2.0**15)
    edit_json(base / "vae" / "config.json", force_upcast=False)
    pair = load_pair(base_alone(base, dtype="float16", offload=offload), "cpu", tmp_path)
    assert pictures(pair.base.vae, latents(4).half()) == [None]
    kept = {name: tensor.clone() for name, tensor in pair.base.vae.state_dict().items() if not tensor.is_meta}
    (found,) = checked_pictures(pair.base.vae, latents(4).half())
    assert found.vae_float32_retry
    assert found.pixels.std() > 10
    assert pair.base.vae.dtype == torch.float16
    assert all(torch.equal(pair.base.vae.state_dict()[name], tensor) for name, tensor in kept.items())


def test_latents_with_nan_are_not_decoded_again(tiny):
    broken = latents(4, images=2)
    broken[0, 0, 0, 0] = math.nan
    first, second = checked_pictures(tiny.base.vae, broken)
    assert (first.pixels, first.vae_float32_retry) == (None, False)
    assert "latents" in first.fault
    assert second.pixels is not None


def test_a_vae_that_bears_float16_stays_in_it(base, tmp_path):
    edit_json(base / "vae" / "config.json", force_upcast=False)
    assert load_pair(base_alone(base, dtype="float16"), "cpu", tmp_path).base.vae.dtype == torch.float16


def test_slicing_rounds_otherwise_and_is_in_the_fingerprint(tiny, model_cache):
    whole = load_pair(TINY.model_copy(update={"vae_slicing": False, "refiner": None}), "cpu", model_cache)
    with torch.inference_mode():
        sliced, unsliced = (decode(pair.base.vae, latents(8, images=3)) for pair in (tiny, whole))
        alone = decode(tiny.base.vae, latents(8, images=3)[1:2])
    assert torch.equal(sliced[1:2], alone)
    assert 0 < (sliced - unsliced).abs().max() < 1e-4
    assert not environment(whole).vae_slicing


def test_tiling_is_diffusers_own(base, tmp_path):
    edit_json(base / "vae" / "config.json", sample_size=64)  # tiles of 64 x 64 pixels
    one = spec(width=104, height=80)
    tiled = load_pair(base_alone(base, vae_tiling=True), "cpu", tmp_path)
    found = render(tiled, [one]).images[0]
    pipe = by_diffusers(base, one)
    untiled = picture(pipe, one)
    pipe.vae.enable_tiling()
    assert difference(found, picture(pipe, one)) == 0
    assert difference(found, untiled) > 0
    assert np.abs(found.astype(int) - untiled.astype(int)).mean() < 20  # the same picture, after all


def test_an_image_of_one_tile_is_not_tiled(base, tmp_path):
    edit_json(base / "vae" / "config.json", sample_size=64)
    tiled, untiled = (load_pair(base_alone(base, vae_tiling=tiling), "cpu", tmp_path) for tiling in (True, False))
    assert difference(render(tiled, [spec()]).images[0], render(untiled, [spec()]).images[0]) == 0
    assert tiled.fingerprint.sha256 != untiled.fingerprint.sha256
    assert (environment(tiled).vae_tiling, environment(untiled).vae_tiling) == (True, False)


def test_another_vae_is_used_as_diffusers_uses_it(tiny, tiny_folder, other_vae, model_cache):
    source = ModelSource(source=str(other_vae))
    pair = load_pair(TINY.model_copy(update={"vae": source}), "cpu", model_cache)
    pipe = by_diffusers(tiny_folder / "base", spec(), AutoencoderKL.from_pretrained(other_vae))
    found = render(pair, [spec()]).images[0]
    assert difference(found, picture(pipe, spec())) == 0
    assert difference(found, render(tiny, [spec()]).images[0]) > 10
    assert pair.base.vae is pair.refiner.vae
    assert pair.fingerprint.sha256 != tiny.fingerprint.sha256
    assert pair.fingerprint.base_hash == tiny.fingerprint.base_hash


def test_the_environment_names_the_other_vae(tiny, other_vae, model_cache):
    pair = load_pair(TINY.model_copy(update={"vae": ModelSource(source=str(other_vae))}), "cpu", model_cache)
    found = environment(pair)
    assert (found.vae, found.vae_revision, found.vae_hash) == (str(other_vae), None, pair.fingerprint.vae_hash)
    assert (environment(tiny).vae, environment(tiny).vae_hash) == (None, None)


@pytest.mark.parametrize("source", ["synthetic:tiny", "{folder}/base", "{folder}/base/vae"])
def test_the_same_vae_from_elsewhere_is_the_same_pair(tiny, tiny_folder, model_cache, source):
    vae = ModelSource(source=source.format(folder=tiny_folder))
    pair = load_pair(TINY.model_copy(update={"vae": vae, "refiner": None}), "cpu", model_cache)
    alone = load_pair(TINY.model_copy(update={"refiner": None}), "cpu", model_cache)
    assert pair.fingerprint.sha256 == alone.fingerprint.sha256


def refusal(base, vae, cache):
    with pytest.raises(PairError) as caught:
        load_pair(base_alone(base, vae=ModelSource(source=str(vae))), "cpu", cache)
    assert str(caught.value).startswith(f"pair 'mine': {vae} does not load: ")
    return str(caught.value)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"scaling_factor": 0.18215}, "its scaling_factor is 0.18215, and that of the base's VAE 0.13025"),
        ({"latent_channels": 16}, "its latent_channels is 16, and that of the base's VAE 4"),
        ({"block_out_channels": [32, 64]}, "its depth is 2 blocks, and that of the base's VAE 4"),
    ],
)
def test_a_vae_of_another_model_is_refused(tiny_folder, other_vae, tmp_path, fields, reason):
    edit_json(other_vae / "config.json", **fields)
    assert reason in refusal(tiny_folder / "base", other_vae, tmp_path)


def test_a_vae_that_is_not_there_is_refused_by_its_own_name(tiny_folder, other_vae, tmp_path):
    assert "there is no such folder" in refusal(tiny_folder / "base", tmp_path / "nowhere", tmp_path)
    assert "no config.json" in refusal(tiny_folder / "base", tmp_path, tmp_path)
    assert "there is no such file" in refusal(tiny_folder / "base", tmp_path / "nowhere.safetensors", tmp_path)
    next(other_vae.glob("*.safetensors")).unlink()
    refusal(tiny_folder / "base", other_vae, tmp_path)


def test_a_vae_that_lacks_a_tensor_is_refused(tiny_folder, other_vae, tmp_path):
    path = next(other_vae.glob("*.safetensors"))
    weights = load_file(path)
    del weights["decoder.conv_in.bias"]
    save_file(weights, path, metadata={"format": "pt"})
    assert "the weights of its VAE lack decoder.conv_in.bias" in refusal(tiny_folder / "base", other_vae, tmp_path)


def test_a_vae_with_statistics_scales_by_them_and_back_as_diffusers_does_it(tiny):
    from worker.passes.latent_scale import scaled, unscaled

    vae = copy.deepcopy(tiny.base.vae)
    vae.register_to_config(latents_mean=[1.0, 2.0, 3.0, 4.0], latents_std=[2.0, 2.0, 4.0, 4.0])
    latents = torch.ones(2, 4, 8, 8)
    known = [(1.0 - mean) * 0.13025 / std for mean, std in ((1, 2), (2, 2), (3, 4), (4, 4))]
    assert scaled(vae, latents)[0, :, 0, 0].tolist() == pytest.approx(known)
    assert unscaled(vae, scaled(vae, latents)).sub(latents).abs().max() < 1e-5
    assert scaled(tiny.base.vae, latents).sub(0.13025).abs().max() < 1e-6
