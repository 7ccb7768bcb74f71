"""Models from one file in SDXL's original layout: the same pictures as from diffusers' layout, and nothing made up."""

import hashlib
import shutil
from dataclasses import replace

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file

from schemas.errors import PairError
from schemas.pair import ModelPair, ModelSource
from schemas.spec import JobSpec
from tests.unit.original_layout import base_tensors, refiner_tensors, vae_tensors, write
from worker.environment import environment
from worker.loading.pipelines import load_pair
from worker.passes.rendering import render
from worker.synthetic_pairs.synthetic import SYNTHETIC_SIZES, TextEncoderSize, build_synthetic_pair


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A pair whose text encoders differ in width, as SDXL's do: diffusers tells them apart by it."""
    tiny = SYNTHETIC_SIZES["tiny"]
    wide = TextEncoderSize(width=64, layers=2, heads=4, activation="gelu")
    path = tmp_path_factory.mktemp("wide")
    build_synthetic_pair(replace(tiny, text_encoder_2=wide), path)
    return path


@pytest.fixture(scope="module")
def files(folder, tmp_path_factory):
    """The same pair as two files, ``base.safetensors`` and ``refiner.safetensors``."""
    path = tmp_path_factory.mktemp("files")
    write(base_tensors(folder / "base"), path / "base.safetensors")
    write(refiner_tensors(folder / "refiner"), path / "refiner.safetensors")
    return path


def source(files, part, folder):
    return ModelSource(source=str(files / f"{part}.safetensors"), config=str(folder / part))


@pytest.fixture(scope="module")
def of_folders(folder, model_cache):
    sources = {part: ModelSource(source=str(folder / part)) for part in ("base", "refiner")}
    return load_pair(ModelPair(name="folders", **sources), "cpu", model_cache)


@pytest.fixture(scope="module")
def of_files(folder, files, model_cache):
    sources = {part: source(files, part, folder) for part in ("base", "refiner")}
    return load_pair(ModelPair(name="files", **sources), "cpu", model_cache)


def spec(**fields):
    return JobSpec.parse(
        {"prompt": "a red fox", "width": 64, "height": 64, "num_inference_steps": 3, "seed": 7} | fields
    )


def same_weights(left, right):
    ours, theirs = left.state_dict(), right.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def aligned(pair):
    """Products of tensors that lie mapped from a file at odd addresses are rounded otherwise on a CPU."""
    for network in (pair.base.text_encoder, pair.base.text_encoder_2, pair.base.unet, pair.base.vae, pair.refiner.unet):
        for tensor in network.parameters():
            tensor.data = tensor.data.clone()
    return pair


def test_files_give_the_pictures_of_the_folders(of_files, of_folders):
    for part in ("text_encoder", "text_encoder_2", "unet", "vae"):
        assert same_weights(getattr(of_files.base, part), getattr(of_folders.base, part))
    assert same_weights(of_files.refiner.unet, of_folders.refiner.unet)
    found, expected = (
        render(aligned(pair), [spec(refiner={"start": 0.5})]).images[0] for pair in (of_files, of_folders)
    )
    assert (found == expected).all()


def test_files_share_what_folders_share(of_files):
    for part in ("text_encoder_2", "tokenizer_2", "vae"):
        assert getattr(of_files.base, part) is getattr(of_files.refiner, part)
    networks = [part for part in of_files.base.components.values() if isinstance(part, torch.nn.Module)]
    assert not any(network.training for network in networks)
    assert of_files.base.watermark is None


def test_the_model_hash_is_that_of_the_file(of_files, of_folders, files):
    digests = {part: hashlib.sha256((files / f"{part}.safetensors").read_bytes()) for part in ("base", "refiner")}
    assert of_files.fingerprint.base_hash == digests["base"].hexdigest()[:10]
    assert of_files.fingerprint.refiner_hash == digests["refiner"].hexdigest()[:10]
    assert of_files.fingerprint.sha256 != of_folders.fingerprint.sha256
    assert environment(of_files).base == str(files / "base.safetensors")
    assert (of_files.base_revision, of_files.refiner_revision) == (None, None)


def test_weights_and_configs_of_a_file_are_in_the_fingerprint(of_files, files, folder, tmp_path):
    base = shutil.copytree(folder / "base", tmp_path / "base")
    alone = {"name": "mine", "base": ModelSource(source=str(files / "base.safetensors"), config=str(base))}
    before = load_pair(ModelPair(**alone), "cpu", tmp_path).fingerprint
    config = base / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace("epsilon", "v_prediction"))
    after = load_pair(ModelPair(**alone), "cpu", tmp_path).fingerprint
    assert before.sha256 != after.sha256
    assert before.base_hash == after.base_hash


def test_weights_that_lie_beside_the_configs_are_not_read(files, folder, tmp_path):
    base = shutil.copytree(folder / "base", tmp_path / "base", ignore=shutil.ignore_patterns("*.safetensors"))
    one = ModelSource(source=str(files / "base.safetensors"), config=str(base))
    assert load_pair(ModelPair(name="mine", base=one), "cpu", tmp_path).base.unet is not None


@pytest.mark.parametrize("layout", ["original", "prefixed", "diffusers", "whole model"])
@pytest.mark.parametrize("config", [True, False])
def test_a_vae_may_be_a_file_too(of_folders, files, folder, tmp_path, layout, config):
    own = folder / "base" / "vae"
    path = {
        "original": lambda: write(vae_tensors(own, prefix=""), tmp_path / "vae.safetensors"),
        "prefixed": lambda: write(vae_tensors(own), tmp_path / "vae.safetensors"),
        "diffusers": lambda: own / "diffusion_pytorch_model.safetensors",
        "whole model": lambda: files / "base.safetensors",
    }[layout]()
    vae = ModelSource(source=str(path), config=str(own) if config else None)
    pair = ModelPair(name="mine", base=ModelSource(source=str(folder / "base")), vae=vae)
    loaded = load_pair(pair, "cpu", tmp_path)
    assert same_weights(loaded.base.vae, of_folders.base.vae)
    assert loaded.fingerprint.vae_hash == hashlib.sha256(path.read_bytes()).hexdigest()[:10]


def test_another_vae_may_stand_in_that_of_a_file(files, folder, tmp_path):
    tensors = vae_tensors(folder / "base" / "vae")
    tensors["first_stage_model.decoder.conv_out.weight"] *= 0.5
    vae = ModelSource(source=str(write(tensors, tmp_path / "vae.safetensors")))
    loaded = load_pair(ModelPair(name="mine", base=source(files, "base", folder), vae=vae), "cpu", tmp_path)
    expected = tensors["first_stage_model.decoder.conv_out.weight"]
    assert torch.equal(loaded.base.vae.decoder.conv_out.weight, expected)


def refusal(pair, cache):
    with pytest.raises(PairError) as caught:
        load_pair(pair, "cpu", cache)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        ("model.diffusion_model.input_blocks.1.0.in_layers.2.weight", "unet lack down_blocks.0.resnets.0.conv1.weight"),
        ("model.diffusion_model.label_emb.0.0.weight", "unet lack label_emb.0.0.weight"),
        ("first_stage_model.decoder.conv_in.bias", "vae lack decoder.conv_in.bias"),
        ("conditioner.embedders.0.transformer.text_model.final_layer_norm.bias", "text_encoder lack"),
        ("conditioner.embedders.1.model.transformer.resblocks.1.attn.in_proj_weight", "text_encoder_2 lack"),
        ("conditioner.embedders.1.model.text_projection", "text_encoder_2 lack text_projection.weight"),
    ],
)
def test_a_tensor_that_the_file_lacks_is_refused_by_name(files, folder, tmp_path, missing, reason):
    tensors = load_file(files / "base.safetensors")
    del tensors[missing]
    path = write(tensors, tmp_path / "base.safetensors")
    message = refusal(ModelPair(name="mine", base=source(tmp_path, "base", folder)), tmp_path)
    assert message.startswith(f"pair 'mine': {path} does not load: the weights of its {reason}")


def test_a_file_without_text_encoders_is_refused_although_the_configs_have_some_beside(files, folder, tmp_path):
    tensors = load_file(files / "base.safetensors")
    write({key: tensors[key] for key in tensors if "conditioner" not in key}, tmp_path / "base.safetensors")
    assert "no text encoders" in refusal(ModelPair(name="mine", base=source(tmp_path, "base", folder)), tmp_path)


def test_a_file_of_one_of_two_text_encoders_is_refused(files, folder, tmp_path):
    tensors = load_file(files / "base.safetensors")
    write({key: tensors[key] for key in tensors if "embedders.1" not in key}, tmp_path / "base.safetensors")
    refusal(ModelPair(name="mine", base=source(tmp_path, "base", folder)), tmp_path)


def test_a_refiner_file_is_no_base(files, folder, tmp_path):
    shutil.copy(files / "refiner.safetensors", tmp_path / "base.safetensors")
    refusal(ModelPair(name="mine", base=source(tmp_path, "base", folder)), tmp_path)


def test_a_refiner_file_that_lacks_a_tensor_is_refused(files, folder, tmp_path):
    tensors = load_file(files / "refiner.safetensors")
    del tensors["model.diffusion_model.out.2.bias"]
    write(tensors, tmp_path / "refiner.safetensors")
    sources = {"base": source(files, "base", folder), "refiner": source(tmp_path, "refiner", folder)}
    assert "unet lack conv_out.bias" in refusal(ModelPair(name="mine", **sources), tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"x" * 5000])
def test_a_file_that_is_no_safetensors_is_refused(folder, tmp_path, content):
    (tmp_path / "base.safetensors").write_bytes(content)
    refusal(ModelPair(name="mine", base=source(tmp_path, "base", folder)), tmp_path)


def test_a_file_that_is_not_there_is_refused(folder, tmp_path):
    message = refusal(ModelPair(name="mine", base=source(tmp_path, "base", folder)), tmp_path)
    assert message.endswith("there is no such file")


def test_configs_come_from_the_hub_where_none_are_named(files, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    one = ModelSource(source=str(files / "base.safetensors"))
    assert "does not load: " in refusal(ModelPair(name="mine", base=one), tmp_path)


def test_a_vae_file_that_lacks_a_tensor_is_refused(folder, tmp_path):
    tensors = vae_tensors(folder / "base" / "vae")
    del tensors["first_stage_model.decoder.mid.attn_1.q.weight"]
    save_file(tensors, tmp_path / "vae.safetensors")
    vae = ModelSource(source=str(tmp_path / "vae.safetensors"))
    pair = ModelPair(name="mine", base=ModelSource(source=str(folder / "base")), vae=vae)
    assert "vae lack decoder.mid_block.attentions.0.to_q.weight" in refusal(pair, tmp_path)
