"""Loading a pair: what is shared, what is refused, what is recorded."""

import json
import logging
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor
from safetensors.torch import load_file, save_file

from schemas.errors import PairError
from schemas.pair import BUILT_IN_PAIRS, ModelPair, ModelSource
from schemas.spec import JobSpec
from worker.environment import environment
from worker.loading.pipelines import load_pair
from worker.loading.timeline import Timeline, telling_of_first
from worker.passes.rendering import render


@pytest.fixture
def folder(tiny_folder, tmp_path):
    """A copy of the tiny pair that a test may spoil."""
    return shutil.copytree(tiny_folder, tmp_path / "pair")


def local_pair(base, refiner=None, **fields):
    sources = {"base": ModelSource(source=str(base)), "refiner": refiner and ModelSource(source=str(refiner))}
    return ModelPair(name="mine", **sources, **fields)


def refusal(pair, cache):
    with pytest.raises(PairError) as caught:
        load_pair(pair, "cpu", cache)
    assert caught.value.__cause__ is None
    assert "\n" not in str(caught.value)
    assert "'mine'" in str(caught.value)
    return str(caught.value)


def edit_json(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_base_and_refiner_share_one_text_encoder_tokenizer_and_vae(tiny):
    assert id(tiny.refiner.text_encoder_2) == id(tiny.base.text_encoder_2)
    assert id(tiny.refiner.tokenizer_2) == id(tiny.base.tokenizer_2)
    assert id(tiny.refiner.vae) == id(tiny.base.vae)
    assert tiny.refiner.text_encoder is None
    assert tiny.refiner.unet is not tiny.base.unet


def mapped_weights():
    """Where this process has pages of safetensors files."""
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if ".safetensors" in line]
    return [tuple(int(end, 16) for end in line[0].split("-")) for line in lines]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_weights_are_mapped_from_their_files_and_not_copied(tiny):
    mapped = mapped_weights()
    networks = [tiny.base.text_encoder, tiny.base.text_encoder_2, tiny.base.unet, tiny.base.vae, tiny.refiner.unet]
    for tensor in (tensor for network in networks for tensor in network.parameters()):
        assert any(begin <= tensor.data_ptr() < end for begin, end in mapped)


def test_the_time_of_each_part_of_loading_is_kept(model_cache):
    timeline = Timeline(time.monotonic())
    load_pair(BUILT_IN_PAIRS["tiny"], "cpu", model_cache, timeline)
    told = str(timeline)
    assert re.fullmatch(r"[\d.]+ s after its start: (.+ [\d.]+, )+fingerprint waited for [\d.]+", told)
    for part in ("files found", "base loaded", "base on its device", "refiner loaded", "refiner on its device"):
        assert f"{part} " in told
    assert re.search(r"fingerprint \(beside the loading\) [\d.]+", told)


def test_a_process_knows_when_it_began():
    code = (
        "import time; time.sleep(0.3); from worker.loading.timeline import Timeline\n"
        "print(Timeline.of_process('imports'))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert float(told.rpartition(" ")[2]) >= 0.3


def test_only_the_first_pack_is_told_of():
    told, ran = [], []
    run = telling_of_first(ran.append, told.append)
    for content in ({"pack_id": "a"}, {"pack_id": "b"}):
        run(content)
    assert ran == [{"pack_id": "a"}, {"pack_id": "b"}]
    assert len(told) == 1


def test_the_log_says_how_much_memory_is_shared(model_cache, caplog):
    with caplog.at_level(logging.INFO, logger="nightshift.worker"):
        loaded = load_pair(BUILT_IN_PAIRS["tiny"], "cpu", model_cache)
    shared = sum(p.numel() * 4 for part in (loaded.base.vae, loaded.base.text_encoder_2) for p in part.parameters())
    alone = (loaded.base.text_encoder, loaded.base.unet, loaded.refiner.unet)
    total = shared + sum(p.numel() * 4 for part in alone for p in part.parameters())
    assert caplog.messages == [
        f"pair tiny on cpu: {total} bytes of parameters, {shared} of them shared by base and refiner"
    ]


def test_models_are_ready_to_render(tiny):
    for pipe in (tiny.base, tiny.refiner):
        modules = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
        assert not any(module.training for module in modules)
        assert {parameter.dtype for module in modules for parameter in module.parameters()} == {torch.float32}
        assert pipe.watermark is None
        assert pipe._progress_bar_config == {"disable": True}


def test_a_local_folder_is_loaded_like_any_other_source(folder, tmp_path, tiny):
    loaded = load_pair(local_pair(folder / "base", folder / "refiner"), "cpu", tmp_path)
    assert loaded.fingerprint == tiny.fingerprint
    weights = zip(loaded.refiner.unet.parameters(), tiny.refiner.unet.parameters(), strict=True)
    assert all(torch.equal(mine, theirs) for mine, theirs in weights)


def test_a_pair_may_have_no_refiner(folder, tmp_path):
    assert load_pair(local_pair(folder / "base"), "cpu", tmp_path).refiner is None


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_the_dtype_of_the_pair_is_used(folder, tmp_path, dtype):
    loaded = load_pair(local_pair(folder / "base", folder / "refiner", dtype=dtype), "cpu", tmp_path)
    assert loaded.dtype == loaded.base.unet.dtype == loaded.refiner.unet.dtype == getattr(torch, dtype)
    assert loaded.base.text_encoder.dtype == loaded.base.text_encoder_2.dtype == getattr(torch, dtype)
    assert loaded.base.vae.dtype == (torch.float32 if dtype == "float16" else getattr(torch, dtype))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_every_dtype_renders_on_a_cpu(folder, tmp_path, dtype):
    loaded = load_pair(local_pair(folder / "base", folder / "refiner", dtype=dtype), "cpu", tmp_path)
    fields = {"width": 64, "height": 64, "num_inference_steps": 2, "refiner": {"start": 0.5}, "seed": 1}
    (picture,) = render(loaded, [JobSpec.parse({"prompt": "a fox"} | fields)]).images
    assert picture is not None
    assert picture.std() > 10


def test_a_variant_is_loaded_where_there_is_one(folder, tmp_path, tiny):
    for part in ("unet", "text_encoder"):
        path = next((folder / "base" / part).glob("*.safetensors"))
        path.rename(path.with_suffix(".fp16.safetensors"))
    source = ModelSource(source=str(folder / "base"), variant="fp16")
    loaded = load_pair(ModelPair(name="mine", base=source), "cpu", tmp_path)
    assert loaded.fingerprint.base_hash == tiny.fingerprint.base_hash


def test_a_variant_of_which_there_is_no_file_is_refused(folder, tmp_path):
    source = ModelSource(source=str(folder / "base"), variant="fp16")
    assert "fp16" in refusal(ModelPair(name="mine", base=source), tmp_path)


def test_a_missing_folder_is_refused(tmp_path):
    message = refusal(local_pair(tmp_path / "nowhere"), tmp_path)
    assert message == f"pair 'mine': {tmp_path / 'nowhere'} does not load: there is no such folder"


def test_a_folder_in_another_layout_is_refused(tmp_path):
    assert "model_index.json" in refusal(local_pair(tmp_path), tmp_path)


def test_an_unknown_synthetic_size_is_refused(tmp_path):
    with pytest.raises(PairError, match="unknown synthetic size 'huge'"):
        load_pair(ModelPair(name="mine", base=ModelSource(source="synthetic:huge")), "cpu", tmp_path)


def test_a_hub_that_does_not_answer_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    message = refusal(ModelPair(name="mine", base=ModelSource(source="nobody/nothing")), tmp_path)
    assert message.startswith("pair 'mine': nobody/nothing does not load: ")


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "text_encoder_2"])
@pytest.mark.parametrize("num_bytes", [0, 4, 5000])
def test_truncated_weights_are_refused(folder, tmp_path, part, num_bytes):
    path = next((folder / "base" / part).glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:num_bytes])
    refusal(local_pair(folder / "base"), tmp_path)


def test_truncated_weights_of_the_refiner_are_refused_by_its_name(folder, tmp_path):
    path = next((folder / "refiner" / "unet").glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:5000])
    assert str(folder / "refiner") in refusal(local_pair(folder / "base", folder / "refiner"), tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "model_index.json",
        "unet/config.json",
        "scheduler/scheduler_config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/config.json",
        "text_encoder_2/model.safetensors",
        "tokenizer/tokenizer.json",
        "tokenizer_2/tokenizer.json",
    ],
)
def test_a_missing_file_is_refused(folder, tmp_path, name):
    (folder / "base" / name).unlink()
    refusal(local_pair(folder / "base"), tmp_path)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "text_encoder_2"])
def test_a_missing_tensor_is_refused_and_not_made_up(folder, tmp_path, part):
    path = next((folder / "base" / part).glob("*.safetensors"))
    weights = load_file(path)
    gone = sorted(weights)[len(weights) // 2]
    del weights[gone]
    path.unlink()  # the refiner's is a hard link to it
    save_file(weights, path, metadata={"format": "pt"})
    assert f"the weights of its {part} lack {gone}" in refusal(local_pair(folder / "base"), tmp_path)


def test_a_config_that_is_no_json_is_refused(folder, tmp_path):
    (folder / "base" / "unet" / "config.json").write_text("{")
    refusal(local_pair(folder / "base"), tmp_path)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "text_encoder_2"])
def test_pickled_weights_are_never_read(folder, tmp_path, part):
    path = next((folder / "base" / part).glob("*.safetensors"))
    names = {"model.safetensors": "pytorch_model.bin"}
    torch.save(load_file(path), path.with_name(names.get(path.name, "diffusion_pytorch_model.bin")))
    path.unlink()
    refusal(local_pair(folder / "base"), tmp_path)


_SPY = "from pathlib import Path\nPath({witness!r}).touch()\nfrom diffusers import {name} as Own\n"


def _plant(path, witness, name="UNet2DConditionModel"):
    path.write_text(_SPY.format(witness=str(witness), name=name))


def test_code_beside_the_weights_is_never_run(folder, tmp_path):
    base, witness = folder / "base", tmp_path / "witness"
    for name in ("None.py", "pipeline.py", "own.py"):
        _plant(base / name, witness, "StableDiffusionXLPipeline")
    _plant(base / "unet" / "own.py", witness)
    for fields in ({}, {"unet": ["own", "Own"]}, {"_class_name": ["own", "Own"]}):
        shutil.copy(folder / "base" / "model_index.json", tmp_path / "kept.json")
        edit_json(base / "model_index.json", **fields)
        refusal(local_pair(base), tmp_path)
        shutil.copy(tmp_path / "kept.json", base / "model_index.json")
    assert not witness.exists()


def test_a_refiner_is_no_base(folder, tmp_path):
    assert "no text_encoder" in refusal(local_pair(folder / "refiner"), tmp_path)


def test_a_base_is_no_refiner(folder, tmp_path):
    assert "its UNet attends to" in refusal(local_pair(folder / "base", folder / "base"), tmp_path)


def test_a_refiner_that_takes_other_time_ids_is_refused(folder, tmp_path):
    edit_json(folder / "refiner" / "model_index.json", requires_aesthetics_score=False)
    assert "time ids" in refusal(local_pair(folder / "base", folder / "refiner"), tmp_path)


def test_weights_of_another_shape_are_refused(folder, tmp_path):
    shutil.copy(
        folder / "refiner" / "unet" / "diffusion_pytorch_model.safetensors",
        folder / "base" / "unet" / "diffusion_pytorch_model.safetensors",
    )
    refusal(local_pair(folder / "base"), tmp_path)


def test_weights_of_another_network_are_refused(folder, tmp_path):
    shutil.copy(
        folder / "base" / "vae" / "diffusion_pytorch_model.safetensors",
        folder / "base" / "unet" / "diffusion_pytorch_model.safetensors",
    )
    refusal(local_pair(folder / "base"), tmp_path)


def test_the_environment_is_what_images_are_rendered_in(tiny):
    found = environment(tiny)
    assert (found.pair, found.base, found.refiner) == ("tiny", "synthetic:tiny", "synthetic:tiny")
    assert (found.base_revision, found.refiner_revision) == (None, None)
    assert (found.pair_fingerprint, found.base_hash) == (tiny.fingerprint.sha256, tiny.fingerprint.base_hash)
    assert found.refiner_hash == tiny.fingerprint.refiner_hash != found.base_hash
    assert (found.device, found.dtype, found.compile_mode) == ("cpu, 1 thread", "float32", "off")
    assert found.license == tiny.pair.license
    assert found.versions["torch"] == str(torch.__version__)
    assert {"nightshift", "diffusers", "transformers", "compel"} <= set(found.versions)
    assert found.attention_backend == "AttnProcessor2_0 flash"


def test_the_environment_names_the_attention_that_is_really_used(model_cache):
    loaded = load_pair(BUILT_IN_PAIRS["tiny"], "cpu", model_cache)
    loaded.refiner.unet.set_attn_processor(AttnProcessor())
    assert environment(loaded).attention_backend == "AttnProcessor AttnProcessor2_0 flash"
