"""Device options: each does something, is recorded, and is refused with a sentence where it cannot work."""

import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn.attention import SDPBackend

from schemas.device_options import DeviceOptions
from schemas.errors import PairError, SpecError
from schemas.loras import Lora
from schemas.pair import BUILT_IN_PAIRS, ModelPair
from schemas.spec import JobSpec
from worker.environment import environment
from worker.loading import attention
from worker.loading.attention import attention_choice, attention_shape, runs
from worker.loading.fingerprint import pair_fingerprint
from worker.loading.model_files import ModelFiles, PairFiles
from worker.loading.pipelines import load_pair
from worker.passes.decoding import pictures
from worker.passes.rendering import check_pair_has, denoise, render

TORCHAO = Path(__file__).parents[2] / ".venv" / "fp8"
#: how far latents of 3 steps may be from the exact ones; another seed is 30 times as far
ROUNDING = 1e-3


@pytest.fixture(scope="module")
def load(smallest_folder, model_cache):
    """The smallest pair with these options, each once."""
    sources = {part: {"source": str(smallest_folder / part)} for part in ("base", "refiner")}

    @cache
    def loaded(device="cpu", dtype=None, **options):
        fields = {"name": "smallest", "dtype": dtype, "options": options}
        return load_pair(ModelPair.model_validate(fields | sources), device, model_cache)

    return loaded


def spec(**fields):
    fields = {"width": 64, "height": 64, "num_inference_steps": 3, "seed": 7, "refiner": {"start_step": 2}} | fields
    return JobSpec.parse({"prompt": "a red fox"} | fields)


def latents(pair, one=None):
    with pair.attention.in_force():
        return denoise(pair, [one or spec()], lambda: False).latents


def distance(left, right):
    return (left - right).abs().max().item()


def picture(pair):
    return render(pair, [spec()]).pictures[0].pixels


@pytest.mark.parametrize(
    "option", [{"channels_last": True}, {"fused_qkv": True}, {"attention": "math"}, {"attention": "auto"}]
)
def test_an_option_moves_the_last_bits_at_most_and_is_recorded(load, smallest, option):
    pair = load(**option)
    assert distance(latents(pair), latents(smallest)) < ROUNDING
    assert distance(latents(smallest), latents(smallest, spec(seed=8))) > 30 * ROUNDING
    found = environment(pair)
    assert found.options == option
    assert found.pair_fingerprint == pair.fingerprint.sha256 != smallest.fingerprint.sha256


def test_without_options_the_fingerprint_is_what_it_was_before_there_were_any(smallest_folder, tmp_path):
    files = PairFiles(ModelFiles(smallest_folder / "base"), ModelFiles(smallest_folder / "refiner"))
    of = {
        name: pair_fingerprint(
            BUILT_IN_PAIRS["tiny"].model_copy(update={"options": options}), "float32", files, tmp_path
        )
        for name, options in (
            ("none", DeviceOptions()),
            ("graphs", DeviceOptions(cuda_graphs=True)),
            ("compiled", DeviceOptions(compile="regional")),
        )
    }
    assert of["none"] == of["graphs"] != of["compiled"]


def test_channels_last_lies_so_in_memory(load):
    pair = load(channels_last=True)
    for network in (pair.base.unet, pair.refiner.unet, pair.base.vae):
        kernels = [tensor for tensor in network.parameters() if tensor.dim() == 4 and min(tensor.shape[1:]) > 1]
        assert kernels
        assert all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in kernels)


def test_fused_projections_replace_the_separate_ones(load, smallest):
    fused, separate = (
        {name.split(".")[-2] for name in pair.base.unet.state_dict() if ".attn1." in name}
        for pair in (load(fused_qkv=True), smallest)
    )
    assert ("to_qkv" in fused, fused & {"to_q", "to_k", "to_v"}) == (True, set())
    assert {"to_q", "to_k", "to_v"} <= separate
    assert environment(load(fused_qkv=True)).attention_backend == "FusedAttnProcessor2_0 flash"


def test_the_kernel_that_attention_gets_is_recorded(load, smallest):
    assert environment(smallest).attention_backend == "AttnProcessor2_0 flash"
    assert environment(load(attention="auto")).attention_backend == "AttnProcessor2_0 flash"
    other = load(attention="math")
    assert environment(other).attention_backend == "AttnProcessor2_0 math"
    assert distance(latents(other), latents(smallest)) > 0


def test_a_vae_in_bfloat16_gives_nearly_the_same_picture(load, smallest):
    pair = load(vae_dtype="bfloat16")
    assert pair.base.vae.dtype == torch.bfloat16
    assert torch.equal(latents(pair), latents(smallest))
    small = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    (found,), (expected,) = (pictures(vae, small) for vae in (pair.base.vae, smallest.base.vae))
    assert 0 < np.abs(found.astype(int) - expected.astype(int)).mean() < 2
    assert environment(pair).options == {"vae_dtype": "bfloat16"}


@pytest.mark.parametrize("fails_at", ["77 keys", "causal attention"])
def test_a_kernel_that_fails_at_what_passes_ask_for_gives_way_to_the_next(smallest, monkeypatch, fails_at):
    """As cuDNN's may, where it finds no plan. PyTorch's own function stands behind."""
    shape, kernel = attention_shape(smallest.base.unet), attention.scaled_dot_product_attention

    def failing(query, key, value, is_causal=False):
        is_asked = is_causal if fails_at == "causal attention" else key.shape[2] == 77 != query.shape[2]
        if is_asked and torch._fused_sdp_choice(query, key, value) == SDPBackend.FLASH_ATTENTION.value:
            raise RuntimeError("no execution plan")
        return kernel(query, key, value, is_causal=is_causal)

    assert attention_choice("auto", shape).first == "flash"
    monkeypatch.setattr(attention, "scaled_dot_product_attention", failing)
    assert attention_choice("auto", shape).first == "math"
    with pytest.raises(ValueError, match="it has math"):
        attention_choice("flash", shape)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"cuda_graphs": True}, "options.cuda_graphs: only GPUs have them"),
        ({"attention": "cudnn"}, 'this device has no "cudnn" for heads of 8 channels in float32; it has flash, math'),
    ],
)
def test_what_this_device_cannot_do_is_refused_in_a_sentence(load, options, reason):
    with pytest.raises(PairError) as caught:
        load(**options)
    assert str(caught.value).startswith("pair 'smallest': ")
    assert reason in str(caught.value)


def test_compiling_without_a_compiler_is_refused_before_anything_is_loaded(load, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(PairError, match=r"options.compile needs a compiler, and this machine has no g\+\+"):
        load(compile="regional")


@pytest.mark.skipif(importlib.util.find_spec("torchao") is not None, reason="torchao is installed here")
def test_fp8_without_torchao_is_refused(load):
    with pytest.raises(PairError, match=r"options\.fp8 needs torchao, which is not installed"):
        load(fp8="weights")


@pytest.mark.parametrize("option", [{"compile": "regional"}, {"cuda_graphs": True}, {"fp8": "weights"}])
@pytest.mark.parametrize("offload", ["model", "sequential", "auto"])
def test_networks_that_come_and_go_are_neither_compiled_nor_recorded_nor_quantised(option, offload):
    fields = {"name": "p", "base": {"source": "synthetic:tiny"}, "offload": offload}
    with pytest.raises(ValidationError, match=f"options.{next(iter(option))} works with networks that stay"):
        ModelPair.model_validate(fields | {"options": option})


@pytest.mark.parametrize("offload", ["model", "sequential"])
def test_layout_and_fused_projections_go_with_offloading(smallest_folder, model_cache, load, offload):
    options = {"channels_last": True, "fused_qkv": True}
    fields = {"name": "p", "base": {"source": str(smallest_folder / "base")}, "offload": offload, "options": options}
    away = load_pair(ModelPair.model_validate(fields), "cpu", model_cache)
    one = spec(refiner={"mode": "off"})
    assert torch.equal(latents(away, one), latents(load(**options), one))


def test_an_unknown_option_is_refused_by_name():
    with pytest.raises(ValidationError, match=r"options\.turbo"):
        ModelPair.model_validate({"name": "p", "base": {"source": "synthetic:tiny"}, "options": {"turbo": True}})


def test_fused_projections_refuse_loras(load):
    one = spec(loras=[Lora(name="film", sha256="0" * 64).model_dump()])
    with pytest.raises(SpecError, match=r"loras: pair 'smallest' has options.fused_qkv, which no LoRA goes with"):
        check_pair_has(load(fused_qkv=True), one)
    check_pair_has(load(channels_last=True), one)


def with_torchao(monkeypatch):
    if importlib.util.find_spec("torchao") is None:
        if not TORCHAO.is_dir():
            pytest.skip("torchao is not here: `make setup` puts it into .venv/fp8")
        monkeypatch.syspath_prepend(str(TORCHAO))


def test_fp8_weights_differ_from_the_exact_ones_by_what_is_stated_and_are_recorded(load, smallest, monkeypatch):
    with_torchao(monkeypatch)
    pair = load(fp8="weights")
    weight = next(tensor for name, tensor in pair.base.unet.named_parameters() if "attn1.to_q.weight" in name)
    assert type(weight).__name__ == "Float8Tensor"
    assert distance(latents(pair), latents(smallest)) > ROUNDING
    far = np.abs(picture(pair).astype(int) - picture(smallest).astype(int))
    assert 0 < far.mean() < 7  # of 8-bit values; another prompt is 17 away, as are weights rounded to powers of two
    assert environment(pair).options == {"fp8": "weights"}
    assert "torchao" in environment(pair).versions
    with pytest.raises(PairError, match=r"compute capability 8\.9"):
        load(fp8="dynamic")


def on_a_gpu():
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device here; `make test-gpu` is for machines with one")


@pytest.mark.gpu
def test_cuda_graphs_change_no_pixel(load):
    on_a_gpu()
    exact, graphs = load("cuda", "float16"), load("cuda", "float16", cuda_graphs=True)
    for one in (spec(), spec(seed=8), spec(width=96), spec(scheduler="dpm++ 2m", guidance_scale=1.0)):
        assert torch.equal(latents(graphs, one), latents(exact, one))
    assert graphs.base.unet.forward._graphs


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["cudnn", "flash", "efficient", "math"])
def test_every_kernel_of_a_gpu_is_taken_or_refused(load, name):
    on_a_gpu()
    exact = load("cuda", "float16")
    shape = attention_shape(exact.base.unet)
    if not runs(name, shape):
        with pytest.raises(PairError, match=r"options\.attention"):
            load("cuda", "float16", attention=name)
        return
    pair = load("cuda", "float16", attention=name)
    assert environment(pair).attention_backend.endswith(name)
    assert distance(latents(pair), latents(exact)) < 5e-2


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["regional", "full"])
def test_compiled_on_a_gpu_a_picture_is_nearly_the_exact_one(load, mode):
    on_a_gpu()
    pair, exact = load("cuda", "float16", compile=mode), load("cuda", "float16")
    found = render(pair, [spec()], compile_mode=mode)
    assert found.compile_mode == mode
    far = np.abs(found.pictures[0].pixels.astype(int) - picture(exact).astype(int))
    assert far.mean() < 1


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("mode", ["off", "regional"])
@pytest.mark.parametrize("option", ["dynamic", "weights"])
def test_fp8_on_a_gpu_makes_a_picture_that_is_near_the_exact_one(load, monkeypatch, option, mode, dtype):
    on_a_gpu()
    with_torchao(monkeypatch)
    if option == "dynamic" and torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("this GPU does not multiply in 8 bits")
    pair, exact = load("cuda", dtype, fp8=option, compile=mode), load("cuda", dtype)
    weight = next(tensor for name, tensor in pair.base.unet.named_parameters() if "attn1.to_q.weight" in name)
    assert type(weight).__name__ == "Float8Tensor"
    found = render(pair, [spec()], compile_mode=mode)
    assert (found.compile_mode, found.pictures[0].fault) == (mode, "")
    assert 0 < np.abs(found.pictures[0].pixels.astype(int) - picture(exact).astype(int)).mean() < 12
