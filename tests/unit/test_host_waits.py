"""How often the host waits for the device inside the denoising loop: never with Euler.

Counted on a device that is not there (``tests.unit.stand_in_device``), and on a GPU by CUDA itself. docs/rendering.md
has the numbers.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import _disable_current_modes

from schemas.pair import BUILT_IN_PAIRS
from schemas.schedulers import SCHEDULERS
from schemas.spec import JobSpec
from tests.unit.stand_in_device import LABEL, OnDevice, StandInDevice
from worker.loading.pipelines import load_pair
from worker.passes.conditioning import Conditioning, base_conditioning
from worker.passes.denoising import Sampler, Stage, denoise
from worker.passes.noise_schedule import noise_schedule

#: in a whole step, at the most. Those that draw noise draw it on the host, and UniPC sends it numbers and inverts
#: matrices. DPM++ SDE draws on the device itself, so only a real one can tell.
WAITS = {
    "euler": 0, "heun": 0, "lms": 0, "ddim": 0, "pndm": 0, "dpm2": 0, "dpm++ 2m": 0, "dpm++ 2s": 0, "deis": 0,
    "euler a": 1, "ddpm": 1, "dpm2 a": 1, "unipc": 7,
}  # fmt: skip
NUM_STEPS = 4


def spec(scheduler, **fields):
    return JobSpec.parse(
        {"prompt": "a fox", "width": 64, "height": 64, "num_inference_steps": NUM_STEPS, "seed": 7,
         "scheduler": scheduler, "refiner": {"mode": "off"}} | fields
    )  # fmt: skip


@dataclass
class Elsewhere:
    """A UNet on the stand-in device, as one piece: its thousands of kernels need not be looked at each time."""

    unet: torch.nn.Module

    def __call__(self, latents, timestep, **told):
        with _disable_current_modes():
            (noise,) = self.unet(latents.held, timestep.held, **told)
        return (OnDevice(noise),)


@dataclass
class Loop:
    """The denoising loop of one image. ``waits``: how many there had been before it, and after each evaluation."""

    pair: object
    one: JobSpec
    num_waits: Callable[[], int]
    waits: list[int] = field(default_factory=list)

    def run(self, stage, noise):
        generators = [torch.Generator().manual_seed(7)]
        schedule = noise_schedule(self.pair, [self.one])
        self.pair.base.scheduler = schedule.scheduler
        options = self.pair.base.prepare_extra_step_kwargs(generators, 0.0)
        latents, sampler = noise * schedule.scheduler.init_noise_sigma, Sampler(schedule, options, self._note)
        assert len(schedule.timesteps_on_host) == len(schedule.timesteps)
        self._note()
        latents = sampler.run(stage, latents, 0, NUM_STEPS)
        return latents, [self.waits[end] - self.waits[start] for start, end in self._steps(schedule)]

    def _note(self):
        self.waits.append(self.num_waits())
        return False

    def _steps(self, schedule):
        ends = [*schedule.starts[1:], len(schedule.timesteps)]
        return zip(schedule.starts, ends, strict=True)


def noise():
    return torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("scheduler", WAITS)
def test_the_host_waits_no_more_than_the_scheduler_makes_it(smallest, scheduler):
    one = spec(scheduler)
    with torch.no_grad():
        told = base_conditioning(smallest, [one])
        here, none = Loop(smallest, one, lambda: 0).run(Stage(smallest.base.unet, told, 5.0), noise())
        with StandInDevice() as device:
            loop = Loop(replace(smallest, device=LABEL), one, lambda: len(device.waits))
            latents, waits = loop.run(Stage(Elsewhere(smallest.base.unet), told, 5.0), OnDevice(noise()))
    assert max(waits) == WAITS[scheduler]
    assert none == [0] * NUM_STEPS
    assert torch.allclose(latents.held, here, rtol=1e-4, atol=1e-4)  # the stand-in computes what a device computes


def test_nor_does_the_network_make_it_wait(smallest):
    one = spec("euler")
    with torch.no_grad():
        told = base_conditioning(smallest, [one])
        there = Conditioning(*map(OnDevice, (told.hidden_states, told.pooled, told.time_ids)), is_guided=True)
        with StandInDevice() as device:
            loop = Loop(replace(smallest, device=LABEL), one, lambda: len(device.waits))
            _, waits = loop.run(Stage(smallest.base.unet, there, 5.0), OnDevice(noise()))
    assert waits == [0] * NUM_STEPS


def test_the_stand_in_counts_what_a_gpu_would_wait_for():
    there, table = OnDevice(torch.tensor([2.0, 0.0])), torch.arange(3)
    with torch.no_grad(), StandInDevice() as device:
        for use in (there[0].item, lambda: bool(there[0] > 1), there.cpu, lambda: table.to(LABEL),
                    lambda: table[there[0].long()], there.nonzero, lambda: there[there > 1]):  # fmt: skip
            device.waits.clear()
            use()
            assert device.waits
        device.waits.clear()
        _ = there * 2 + torch.tensor(1.0), there[1:], there.clone().add_(1), torch.zeros(2, device=LABEL) + there
        assert device.waits == []


def test_every_scheduler_is_counted_but_the_one_that_draws_on_the_device():
    assert set(SCHEDULERS) - set(WAITS) == {"dpm++ sde"}


def test_the_numbers_stand_in_the_docs():
    page = (Path(__file__).parents[2] / "docs" / "rendering.md").read_text(encoding="utf-8")
    for scheduler, num_waits in WAITS.items():
        assert f"| `{scheduler}` | {num_waits} |" in page


@pytest.fixture
def on_gpu(model_cache):
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device here; `make test-gpu` is for machines with one")
    yield load_pair(BUILT_IN_PAIRS["tiny"], "cuda", model_cache)
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
def test_with_euler_a_gpu_is_never_waited_for_between_the_first_evaluation_and_the_last(on_gpu):
    one, calls = spec("euler", refiner={"start_step": 2}), []
    expected = denoise(on_gpu, [one], lambda: False).latents

    def stop():
        calls.append(None)
        torch.cuda.set_sync_debug_mode("error" if len(calls) < NUM_STEPS else "default")
        return False

    assert torch.equal(denoise(on_gpu, [one], stop).latents, expected)
    torch.cuda.set_sync_debug_mode("error")
    with pytest.raises(RuntimeError, match="synchroniz"):
        expected.cpu()


@pytest.mark.gpu
@pytest.mark.parametrize("scheduler", WAITS)
def test_a_gpu_is_waited_for_no_more_often_than_the_stand_in(on_gpu, scheduler):
    one = spec(scheduler)
    with torch.no_grad(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        stage = Stage(on_gpu.base.unet, base_conditioning(on_gpu, [one]), 5.0)
        latents = noise().to("cuda", on_gpu.dtype)
        Loop(on_gpu, one, lambda: 0).run(stage, latents)  # kernels are chosen now
        torch.cuda.set_sync_debug_mode("warn")
        _, waits = Loop(on_gpu, one, lambda: len(caught)).run(stage, latents)
    assert max(waits) <= WAITS[scheduler], waits
