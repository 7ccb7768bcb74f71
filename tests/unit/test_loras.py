"""LoRAs on the base, held against diffusers' ``load_lora_weights`` and ``set_adapters`` on a pipeline of its own."""

import json
import struct

import diffusers
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file

import worker.passes.embedding
from schemas.errors import InputFileError
from schemas.spec import JobSpec
from tests.unit.lora_files import ADAPTED, COMPONENTS, lora_of, write_kohya, write_peft
from worker.loading.loras import MAX_LOADED, set_adapters, without_loras
from worker.passes.conditioning import refiner_conditioning
from worker.passes.inputs import PassInputs
from worker.passes.rendering import denoise, render

PREFIX_CHARACTERS = 12


def spec(**fields):
    return JobSpec.parse(
        {"prompt": "a red fox", "negative_prompt": "blurry", "width": 64, "height": 64, "num_inference_steps": 2,
         "seed": 7, "refiner": {"mode": "off"}} | fields
    )  # fmt: skip


def wearing(pair, *files, weights=(), **fields):
    """Latents of a spec with these LoRAs, as ``render`` makes them."""
    loras = [lora_of(file, weight) for file, weight in zip(files, weights or [1.0] * len(files), strict=True)]
    one = spec(loras=[lora.model_dump() for lora in loras], **fields)
    set_adapters(pair, one.loras, {lora.sha256: file for lora, file in zip(loras, files, strict=True)})
    return denoise(pair, [one], lambda: False).latents


@pytest.fixture(scope="module")
def plain_base(tiny_folder):
    """A base in diffusers' own pipeline, which no other test has."""
    base = StableDiffusionXLPipeline.from_pretrained(tiny_folder / "base", use_safetensors=True, add_watermarker=False)
    base.set_progress_bar_config(disable=True)
    return base


@pytest.fixture(scope="module")
def folder(tmp_path_factory, plain_base):
    """LoRAs of all three components, of the UNet alone and of each text encoder alone."""
    folder = tmp_path_factory.mktemp("loras")
    write_kohya(folder / "kohya.safetensors", plain_base, seed=1)
    write_peft(folder / "peft.safetensors", plain_base, seed=2)
    write_peft(folder / "unet.safetensors", plain_base, ("unet",), seed=3)
    write_kohya(folder / "encoder.safetensors", plain_base, ("text_encoder",), seed=4)
    write_peft(folder / "encoder_2.safetensors", plain_base, ("text_encoder_2",), seed=5)
    return folder


@pytest.fixture
def pair(tiny):
    """The tiny pair; other tests get it without LoRAs."""
    yield tiny
    tiny.base.unload_lora_weights()


def by_diffusers(base, names, weights, folder):
    """As diffusers' documentation shows it."""
    config = diffusers.EulerDiscreteScheduler.load_config(base.config._name_or_path, subfolder="scheduler")
    base.scheduler = diffusers.EulerDiscreteScheduler.from_config(config)
    try:
        for name in names:
            base.load_lora_weights(folder, weight_name=f"{name}.safetensors", adapter_name=name)
        if names:
            base.set_adapters(names, adapter_weights=weights)
        one = spec()
        return base(
            prompt=one.prompt, negative_prompt=one.negative_prompt, num_inference_steps=2, guidance_scale=5.0,
            height=64, width=64, generator=torch.Generator("cpu").manual_seed(7), output_type="latent",
        ).images  # fmt: skip
    finally:
        base.unload_lora_weights()


@pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute:UserWarning")  # of diffusers by itself
@pytest.mark.parametrize(
    ("names", "weights"),
    [
        (["kohya"], [1.0]),
        (["peft"], [1.0]),
        (["kohya"], [-0.7]),
        (["unet"], [0.5]),
        (["encoder"], [1.0]),
        (["encoder_2"], [1.0]),
        (["kohya", "peft"], [0.8, 0.3]),
        (["encoder", "unet"], [1.5, -0.5]),
    ],
)
def test_loras_change_the_picture_as_diffusers_does_it(pair, plain_base, folder, names, weights):
    ours = wearing(pair, *(folder / f"{name}.safetensors" for name in names), weights=weights)
    assert torch.equal(ours, by_diffusers(plain_base, names, weights, folder))
    assert not torch.equal(ours, wearing(pair))


def test_the_comparison_sees_another_weight(pair, plain_base, folder):
    ours = wearing(pair, folder / "encoder.safetensors", weights=[0.9])
    assert not torch.equal(ours, by_diffusers(plain_base, ["encoder"], [1.0], folder))


def test_the_alpha_of_diffusers_trainers_is_that_of_diffusers(pair, plain_base, folder, tmp_path):
    config = {"r": 2, "lora_alpha": 1, "init_lora_weights": "gaussian"}
    config["target_modules"] = list(ADAPTED)
    metadata = {f"unet.{key}": value for key, value in config.items()}
    write_peft(tmp_path / "unet.safetensors", plain_base, ("unet",), seed=3, **metadata)
    ours = wearing(pair, tmp_path / "unet.safetensors")
    assert torch.equal(ours, by_diffusers(plain_base, ["unet"], [1.0], tmp_path))
    assert not torch.equal(ours, wearing(pair, folder / "unet.safetensors"))


def test_the_dropout_of_the_training_does_not_go_on(pair, plain_base, folder, tmp_path):
    config = {"r": 2, "lora_alpha": 2, "target_modules": list(ADAPTED), "lora_dropout": 0.5}
    metadata = {f"unet.{key}": value for key, value in config.items()}
    file = write_peft(tmp_path / "unet.safetensors", plain_base, ("unet",), seed=3, **metadata)
    assert torch.equal(wearing(pair, file), wearing(pair, folder / "unet.safetensors"))


def test_a_file_of_which_diffusers_would_leave_a_part_out_is_refused(pair, plain_base, tmp_path):
    """Without out_proj its reader does not know kohya's text encoders, says so in a log, and goes on."""
    file = tmp_path / "half.safetensors"
    whole = load_file(write_kohya(tmp_path / "whole.safetensors", plain_base))
    save_file({name: tensor for name, tensor in whole.items() if "out_proj" not in name}, file)
    with pytest.raises(InputFileError, match=r"of its \d+ tensors \d+ have a place in it"):
        wearing(pair, file)


def test_passes_take_turns_and_none_leaves_anything_behind(pair, folder):
    kohya, peft = folder / "kohya.safetensors", folder / "peft.safetensors"
    bare = wearing(pair)
    with_one, with_both = wearing(pair, kohya), wearing(pair, kohya, peft)
    assert torch.equal(wearing(pair), bare)  # switched off
    assert torch.equal(wearing(pair, kohya), with_one)
    assert torch.equal(wearing(pair), bare)
    assert torch.equal(wearing(pair), bare)  # unloaded
    assert pair.base.get_list_adapters() == {}
    assert torch.equal(wearing(pair, kohya, peft), with_both)


def test_only_a_few_adapters_stay_loaded(pair, folder, plain_base, tmp_path):
    first = wearing(pair, folder / "unet.safetensors")
    for n in range(MAX_LOADED + 1):
        wearing(pair, write_peft(tmp_path / f"{n}.safetensors", plain_base, ("unet",), seed=10 + n))
    loaded = pair.base.get_list_adapters()["unet"]
    assert loaded == [lora_of(tmp_path / f"{n}.safetensors").sha256 for n in range(1, MAX_LOADED + 1)]
    assert torch.equal(wearing(pair, folder / "unet.safetensors"), first)


def test_render_puts_the_loras_of_its_specs_on(pair, folder):
    file = folder / "kohya.safetensors"
    one = spec(loras=[lora_of(file).model_dump()])
    with_lora = render(pair, [one], inputs=PassInputs(loras={lora_of(file).sha256: file})).images[0]
    bare = render(pair, [spec()]).images[0]
    assert (with_lora != bare).any()


# The refiner shares text_encoder_2


def refiner_reads(pair):
    told = refiner_conditioning(pair, [spec(refiner={})])
    return torch.cat([told.hidden_states.flatten(), told.pooled.flatten()])


def test_a_lora_of_the_shared_text_encoder_does_not_reach_the_refiner(pair, folder, monkeypatch):
    bare = refiner_reads(pair)
    wearing(pair, folder / "encoder_2.safetensors")
    assert torch.equal(refiner_reads(pair), bare)
    with monkeypatch.context() as patch:  # what would be seen without the guard
        patch.setattr(worker.passes.embedding, "without_loras", lambda encoder: torch.no_grad())
        assert not torch.equal(refiner_reads(pair), bare)


@pytest.mark.parametrize("handoff", ["lossless", "diffusers"])
def test_the_base_has_its_loras_back_after_the_refiner(pair, folder, handoff):
    refiner = {"handoff": handoff}
    file = folder / "encoder_2.safetensors"
    first = wearing(pair, file, refiner=refiner)
    assert torch.equal(wearing(pair, file, refiner=refiner), first)
    assert not torch.equal(wearing(pair, refiner=refiner), first)


def test_the_loras_come_back_after_an_error_too(pair, folder):
    first = wearing(pair, folder / "encoder_2.safetensors")
    with pytest.raises(KeyError), without_loras(pair.base.text_encoder_2):
        raise KeyError
    assert torch.equal(denoise(pair, [spec()], lambda: False).latents, first)


# What does not fit


def changed(path, source, change):
    save_file(change(load_file(source)), path, {"format": "pt"})
    return path


def wider(tensors):
    """UNet that fits, then a text encoder that does not."""
    name = next(name for name in tensors if name.startswith("text_encoder_2") and "lora_A" in name)
    return tensors | {name: torch.zeros(2, 999)}


def renamed(tensors):
    return {name.replace("blocks", "bricks").replace("layers", "sheets"): tensor for name, tensor in tensors.items()}


def with_a_stranger(tensors):
    stranger = "unet.down_blocks.9.attentions.0.proj_in"
    return tensors | {f"{stranger}.lora_A.weight": torch.zeros(2, 8), f"{stranger}.lora_B.weight": torch.zeros(8, 2)}


def halved(tensors):
    return {name: tensor for name, tensor in tensors.items() if "lora_A" in name}


def without_one_half(tensors):
    name = next(name for name in tensors if "lora_B" in name and name.startswith("unet"))
    return {other: tensor for other, tensor in tensors.items() if other != name}


@pytest.mark.parametrize("change", [wider, renamed, with_a_stranger, halved, without_one_half])
def test_a_lora_that_does_not_fit_is_refused_whole_and_nothing_of_it_stays(pair, folder, tmp_path, change):
    bare = wearing(pair)
    good = wearing(pair, folder / "kohya.safetensors")
    bad = changed(tmp_path / "bad.safetensors", folder / "peft.safetensors", change)
    with pytest.raises(InputFileError) as error:
        wearing(pair, folder / "kohya.safetensors", bad)
    digest = lora_of(bad).sha256[:PREFIX_CHARACTERS]
    assert str(error.value).startswith(f"LoRA 'bad' ({digest}) does not fit the base: ")
    assert "\n" not in str(error.value)
    for name in COMPONENTS:
        assert not [found for found, _ in getattr(pair.base, name).named_parameters() if "lora" in found]
    assert torch.equal(wearing(pair), bare)
    assert torch.equal(wearing(pair, folder / "kohya.safetensors"), good)


@pytest.mark.parametrize(
    "config",
    [
        {"unet.megatron_config": {}, "unet.megatron_core": "antigravity.core"},
        {"unet.init_lora_weights": "pissa"},
        {"unet.layer_replication": [[0, 1], [0, 1]]},
        {"unet.modules_to_save": ["conv_in"]},
        {"unet.rank_pattern": {"(a+)+$": 2}},
        {"unet.target_modules": ".*"},
        {"unet.unknown": 1},
    ],
)
def test_a_lora_may_not_ask_for_more_than_a_lora_is(pair, plain_base, tmp_path, config):
    file = write_peft(
        tmp_path / "bad.safetensors", plain_base, ("unet",), **{"unet.r": 2, "unet.lora_alpha": 2} | config
    )
    with pytest.raises(InputFileError, match="which is not taken"):
        wearing(pair, file)


@pytest.mark.parametrize(
    "config", [{"unet.r": 2}, {"unet.r": 2, "unet.target_modules": None}, {"text_encoder.target_modules": ["q_proj"]}]
)
def test_a_configuration_that_does_not_say_where_its_matrices_belong_is_named(pair, plain_base, tmp_path, config):
    file = write_peft(tmp_path / "bad.safetensors", plain_base, ("unet",), **config)
    with pytest.raises(InputFileError, match=r"its lora_adapter_metadata has no unet\.target_modules$"):
        wearing(pair, file)


def test_a_tensor_of_another_shape_is_named(pair, plain_base, tmp_path):
    good = write_peft(tmp_path / "good.safetensors", plain_base, ("unet",))
    name = next(name for name in load_file(good) if "lora_A" in name)
    bad = changed(tmp_path / "bad.safetensors", good, lambda tensors: tensors | {name: torch.zeros(2, 999)})
    there = list(load_file(good)[name].shape)
    with pytest.raises(InputFileError) as error:
        wearing(pair, bad)
    told = f"its tensor {name.removeprefix('unet.')} has the shape [2, 999], and there {there} is right"
    assert str(error.value).endswith(f"does not fit the base: {told}")


def test_a_text_encoders_tensor_of_another_shape_is_told_of_the_encoder(pair, folder, tmp_path):
    bad = changed(tmp_path / "bad.safetensors", folder / "peft.safetensors", wider)
    with pytest.raises(InputFileError, match="base: a tensor of its text_encoder_2 has another shape than there"):
        wearing(pair, bad)


def test_a_pickle_is_not_opened(pair, tmp_path):
    import pickle

    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was run",))

    file = tmp_path / "bad.safetensors"
    file.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(InputFileError, match="does not fit"):
        wearing(pair, file)
    torch.save({"unet.x.lora_A.weight": torch.zeros(1)}, file)
    with pytest.raises(InputFileError, match="does not fit"):
        wearing(pair, file)


def test_a_header_that_lies_is_refused(pair, tmp_path):
    content = json.dumps({"unet.x.lora_A.weight": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "bad.safetensors").write_bytes(struct.pack("<Q", len(content)) + content + b"\0" * 4)
    with pytest.raises(InputFileError, match="does not fit"):
        wearing(pair, tmp_path / "bad.safetensors")
