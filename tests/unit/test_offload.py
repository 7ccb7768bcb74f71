"""Offloading: what is where and when. ``cpu:0`` is the CPU by another name: moves to it and back are told apart."""

import numpy as np
import pytest
import torch
from accelerate.hooks import add_hook_to_module

from schemas.pair import BUILT_IN_PAIRS
from schemas.spec import JobSpec
from worker.loading.offload import Bringing, Device, size_bytes
from worker.loading.offload_choice import RESERVE_BYTES, WeightSizes, choose_offload
from worker.loading.pipelines import load_pair
from worker.passes.inputs import PassInputs
from worker.passes.rendering import render

GIB = 2**30
SDXL = WeightSizes(total_bytes=int(11.62e9), largest_bytes=int(5.13e9))
HOME, DEVICE = "cpu", "cpu:0"


@pytest.mark.parametrize(
    ("free_gib", "choice"),
    [(80, "none"), (14, "none"), (13, "model"), (8, "model"), (7, "sequential"), (1, "sequential")],
)
def test_the_fastest_way_that_fits_is_chosen(free_gib, choice):
    assert choose_offload(free_gib * GIB, SDXL) == choice


def test_what_fits_exactly_fits():
    sizes = WeightSizes(total_bytes=10, largest_bytes=4)
    assert [choose_offload(free, sizes, reserve_bytes=2) for free in (12, 11, 6, 5)] == [
        "none", "model", "model", "sequential"
    ]  # fmt: skip
    assert choose_offload(RESERVE_BYTES + 10, sizes) == "none"


class Network(torch.nn.Linear):
    """Notes where it is sent, in place of going there."""

    def __init__(self, name, moves, fails=False):
        super().__init__(1, 1)
        self.name, self.moves, self.fails = name, moves, fails

    def to(self, device):
        self.moves.append(f"{self.name} {device}")
        if self.fails and str(device) == DEVICE:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self


@pytest.fixture
def moves():
    return []


def test_who_works_is_brought_and_who_worked_is_sent_home(moves):
    device = Device(torch.device(DEVICE))
    encoders = (Network("one", moves), Network("two", moves))
    unet = (Network("unet", moves),)
    for group in (encoders, unet):
        for network in group:
            add_hook_to_module(network, Bringing(device, group))
    for network in (*encoders, *encoders, *unet, *unet, encoders[1]):
        network(torch.ones(1))
    assert moves == [
        "one cpu:0", "two cpu:0", "one cpu", "two cpu", "unet cpu:0", "unet cpu", "one cpu:0", "two cpu:0"
    ]  # fmt: skip


def test_after_an_out_of_memory_nobody_is_on_the_device(moves):
    device = Device(torch.device(DEVICE))
    fits, fails = (Network("fits", moves),), (Network("half", moves), Network("fails", moves, fails=True))
    device.bring(fits)
    with pytest.raises(torch.OutOfMemoryError):
        device.bring(fails)
    assert moves == ["fits cpu:0", "fits cpu", "half cpu:0", "fails cpu:0", "half cpu", "fails cpu"]
    device.bring(fits)
    assert moves[-1] == "fits cpu:0"


def spec(**fields):
    return JobSpec.parse(
        {"prompt": "a red fox", "width": 64, "height": 64, "num_inference_steps": 2, "seed": 7} | fields
    )


def on_device(offload, device, cache):
    return load_pair(BUILT_IN_PAIRS["tiny"].model_copy(update={"offload": offload}), device, cache)


@pytest.fixture(scope="module")
def by_network(model_cache):
    return on_device("model", DEVICE, model_cache)


@pytest.fixture(scope="module")
def by_layer(model_cache):
    return on_device("sequential", HOME, model_cache)


PICTURE = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
KINDS = [
    {"refiner": {"start_step": 1}},
    {"refiner": {"start": 0.5, "handoff": "diffusers"}},
    {"refiner": {"mode": "off"}},
    {"refiner": {"mode": "img2img", "strength": 0.5}},
    {"refiner": {"mode": "only", "strength": 0.5}, "init_image": "0" * 64},
    {"prompt": "a (red)++ fox", "negative_prompt": "blurry", "prompt_syntax": "compel"},
]


def picture(pair, kind):
    one = spec(**kind)
    return render(pair, [one], inputs=PassInputs((PICTURE,) if one.init_image else ())).images[0]


@pytest.mark.parametrize("kind", KINDS)
def test_offloading_changes_no_pixel(tiny, by_network, by_layer, kind):
    pinned = picture(tiny, kind)
    for pair in (by_network, by_layer):
        for _ in range(2):  # the second pass begins with what the first has left
            assert np.array_equal(picture(pair, kind), pinned)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["model", "sequential"])
def test_offloading_from_a_gpu_changes_no_pixel(model_cache, kind, way):
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    pinned, offloaded = (on_device(offload, "cuda", model_cache) for offload in ("none", way))
    expected = picture(pinned, kind)
    for _ in range(2):
        assert np.array_equal(picture(offloaded, kind), expected)


@pytest.mark.gpu
def test_a_large_gpu_offloads_nothing_by_itself(model_cache):
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    assert on_device("auto", "cuda", model_cache).offload == "none"


def test_offloading_is_not_in_the_fingerprint(tiny, by_network, by_layer):
    assert by_network.fingerprint == by_layer.fingerprint == tiny.fingerprint
    assert (tiny.offload, by_network.offload, by_layer.offload) == ("none", "model", "sequential")


def test_the_pipelines_know_where_they_work(by_network, by_layer):
    for pair in (by_network, by_layer):
        for pipe in (pair.base, pair.refiner):
            assert pipe._execution_device == pair.device


def test_one_network_at_a_time_is_on_the_device_in_the_order_of_their_work(by_network, monkeypatch):
    base, refiner = by_network.base, by_network.refiner
    render(by_network, [spec()])  # leaves the VAE there
    networks = {"encoder": base.text_encoder, "encoder_2": base.text_encoder_2, "base": base.unet,
                "refiner": refiner.unet, "vae": base.vae}  # fmt: skip
    moves = []
    for name, network in networks.items():
        monkeypatch.setattr(network, "to", lambda device, name=name: moves.append(f"{name} {device}"))
    render(by_network, [spec(prompt="words that no other test has encoded")])
    arrivals = [move.removesuffix(f" {DEVICE}") for move in moves if move.endswith(DEVICE)]
    assert arrivals == ["encoder", "encoder_2", "base", "refiner", "vae"]
    present = {"vae"}
    for name, place in (move.split() for move in moves):
        present = present | {name} if place == DEVICE else present - {name}
        assert present <= {"encoder", "encoder_2"} or len(present) == 1
    assert present == {"vae"}


def test_layer_by_layer_leaves_nothing_on_the_device(by_layer, tiny):
    render(by_layer, [spec()])
    for network in (by_layer.base.unet, by_layer.refiner.unet, by_layer.base.vae):
        assert {tensor.device.type for tensor in network.parameters()} == {"meta"}
    assert {tensor.device.type for tensor in by_layer.base.text_encoder_2.parameters()} == {"cpu"}
    assert size_bytes([by_layer.base.unet]) == size_bytes([tiny.base.unet])


def test_on_a_cpu_auto_offloads_nothing(model_cache):
    assert on_device("auto", HOME, model_cache).offload == "none"
