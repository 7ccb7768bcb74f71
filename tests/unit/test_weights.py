"""Weights that are not what they say: refused by one sentence before any tensor is read, wherever weights come from."""

import json
import os
import shutil
import struct
import tracemalloc

import pytest
from safetensors.torch import load_file, save_file

from farm.safetensors_header import tensor_names
from producer.manifests.lora_file import lora_flaw
from schemas.errors import InputFileError, PairError
from schemas.pair import ModelPair, ModelSource, TextualInversion
from tests.unit.liars import LIARS
from tests.unit.lora_files import lora_of
from worker.loading.loras import set_adapters
from worker.loading.pipelines import load_pair

#: one of each kind, where loading takes seconds
SOME = ["a pickle", "a pickle of torch", "a header of 2 GB", "deeply nested", "tensors that overlap", "a name twice"]


@pytest.mark.parametrize("liar", LIARS)
def test_a_lora_that_lies_is_refused_when_the_manifest_is_read(tmp_path, liar):
    content, reason = LIARS[liar]
    (tmp_path / "a.safetensors").write_bytes(content)
    flaw = lora_flaw(tmp_path / "a.safetensors")
    assert flaw.startswith(reason)
    assert flaw.isprintable()
    assert len(flaw) < 300


def test_an_honest_file_is_taken_whatever_its_types_and_sizes(tmp_path):
    import torch

    tensors = {str(dtype): torch.zeros(3, 5).to(dtype) for dtype in (
        torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.uint8, torch.int64, torch.bool,
        torch.float8_e4m3fn,
    )}  # fmt: skip
    tensors |= {"empty": torch.zeros(0, 7), "scalar": torch.tensor(1.0)}
    save_file(tensors, tmp_path / "a.safetensors", {"format": "pt"})
    assert sorted(tensor_names(tmp_path / "a.safetensors")) == sorted(tensors)


def test_a_header_that_claims_gigabytes_takes_none(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", 2 << 30))
    with path.open("ab") as file:
        file.truncate(3 << 30)  # sparse: the file really is that long
    tracemalloc.start()
    try:
        assert tensor_names(path).startswith("is no safetensors")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def refusal(pair, cache):
    with pytest.raises(PairError) as caught:
        load_pair(pair, "cpu", cache)
    assert caught.value.__cause__ is None
    return str(caught.value)


@pytest.fixture
def folder(tiny_folder, tmp_path):
    """Hard links to the tiny pair: what a test replaces, it unlinks before."""
    return shutil.copytree(tiny_folder, tmp_path / "pair", copy_function=os.link)


def replaced(path, content):
    path.unlink()
    path.write_bytes(content)


def weights_of(folder, part):
    return next((folder / part).glob("*.safetensors"))


@pytest.mark.parametrize("liar", SOME)
@pytest.mark.parametrize("part", ["base/unet", "base/vae", "base/text_encoder", "base/text_encoder_2", "refiner/unet"])
def test_a_part_that_lies_is_refused(folder, tmp_path, part, liar):
    content, reason = LIARS[liar]
    replaced(weights_of(folder, part), content)
    sources = {side: ModelSource(source=str(folder / side)) for side in ("base", "refiner")}
    said = refusal(ModelPair(name="mine", **sources), tmp_path)
    assert f"does not load: {part.split('/')[1]}/{weights_of(folder, part).name} {reason}" in said


@pytest.mark.parametrize("liar", LIARS)
@pytest.mark.parametrize("part", ["base", "refiner", "vae"])
def test_a_single_file_that_lies_is_refused(tiny_folder, tmp_path, part, liar):
    content, reason = LIARS[liar]
    (tmp_path / "a.safetensors").write_bytes(content)
    file = ModelSource(source=str(tmp_path / "a.safetensors"), config=str(tiny_folder / "base"))
    base = ModelSource(source=str(tiny_folder / "base"))
    said = refusal(ModelPair(name="mine", **{"base": base, part: file}), tmp_path)
    assert f"/a.safetensors {reason}" in said


@pytest.mark.parametrize("liar", SOME)
def test_a_folder_of_a_vae_that_lies_is_refused(folder, tmp_path, liar):
    content, reason = LIARS[liar]
    replaced(weights_of(folder, "base/vae"), content)
    sources = {
        "base": ModelSource(source=str(folder / "base")),
        "vae": ModelSource(source=str(folder / "base" / "vae")),
    }
    assert reason in refusal(ModelPair(name="mine", **sources), tmp_path)


@pytest.mark.parametrize("liar", ["a pickle", "a name twice"])
def test_a_textual_inversion_that_lies_is_refused(tiny_folder, tmp_path, liar):
    content, reason = LIARS[liar]
    (tmp_path / "a.safetensors").write_bytes(content)
    inversion = TextualInversion(source=str(tmp_path / "a.safetensors"), token="<a>")
    base = ModelSource(source=str(tiny_folder / "base"))
    assert reason in refusal(ModelPair(name="mine", base=base, textual_inversions=(inversion,)), tmp_path)


@pytest.mark.parametrize("liar", LIARS)
def test_a_lora_that_lies_is_refused_by_the_worker_too(tiny, tmp_path, liar):
    """The image store may be another's by then."""
    content, reason = LIARS[liar]
    (tmp_path / "a.safetensors").write_bytes(content)
    lora = lora_of(tmp_path / "a.safetensors")
    with pytest.raises(InputFileError) as caught:
        set_adapters(tiny, [lora], {lora.sha256: tmp_path / "a.safetensors"})
    assert reason.rstrip(":") in str(caught.value)


def sharded(folder, shard):
    """The UNet's weights behind an index that names the shard."""
    path = weights_of(folder, "base/unet")
    names = list(load_file(path))
    index = {"metadata": {"total_size": path.stat().st_size}, "weight_map": dict.fromkeys(names, shard)}
    path.with_name("diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    return path


def test_shards_beside_their_index_are_read(folder, tmp_path):
    path = sharded(folder, "shard-1.safetensors")
    path.rename(path.with_name("shard-1.safetensors"))
    pair = ModelPair(name="mine", base=ModelSource(source=str(folder / "base")))
    assert load_pair(pair, "cpu", tmp_path).base.unet is not None


@pytest.mark.parametrize(
    "shard", ["../../outside.safetensors", "{folder}/outside.safetensors", "shard.bin", "", None, 7]
)
def test_an_index_that_names_anything_else_is_refused(folder, tmp_path, shard):
    wanted = shard.format(folder=folder) if isinstance(shard, str) else shard
    path = sharded(folder, wanted)
    path.rename(folder / "outside.safetensors")
    said = refusal(ModelPair(name="mine", base=ModelSource(source=str(folder / "base"))), tmp_path)
    assert "which is no file beside it" in said
