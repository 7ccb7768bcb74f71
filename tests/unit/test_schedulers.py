"""The tables of schedulers and their options, held against diffusers itself."""

import inspect
import re
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from schemas.errors import SpecError
from schemas.schedulers import OPTION_NAMES, SCHEDULER_OPTIONS, SCHEDULERS, a1111_sampler
from schemas.spec import JobSpec
from tests.unit.schedulers import fresh_scheduler
from worker.synthetic_pairs.synthetic import _SCHEDULER_CONFIG as SDXL_CONFIG

RENDERING = (Path(__file__).parents[2] / "docs" / "rendering.md").read_text()
EVERY_OPTION = [
    (class_name, {option: value})
    for class_name, choices in SCHEDULER_OPTIONS.items()
    for option, values in choices.items()
    for value in values
]


def spec(**fields: Any) -> JobSpec:
    return JobSpec.parse({"prompt": "a cat", "seed": 1, **fields})


def refusal(**fields: Any) -> str:
    with pytest.raises(SpecError) as error:
        spec(**fields)
    return str(error.value)


def test_the_schedulers_are_those_that_are_compatible_with_sdxl() -> None:
    euler = diffusers.EulerDiscreteScheduler.from_config(dict(SDXL_CONFIG))
    compatible = {scheduler.__name__ for scheduler in euler.compatibles}
    assert compatible - set(SCHEDULERS.values()) <= {"EDMEulerScheduler", "SASolverScheduler"}
    assert set(SCHEDULERS.values()) <= compatible | {"EulerDiscreteScheduler"}
    assert len(SCHEDULERS) == 14


@pytest.mark.parametrize("class_name", SCHEDULERS.values())
def test_every_option_is_one_of_the_class(class_name: str) -> None:
    signature = inspect.signature(getattr(diffusers, class_name).__init__)
    for option, values in SCHEDULER_OPTIONS[class_name].items():
        assert type(signature.parameters[option].default) is type(values[0])
        assert signature.parameters[option].default in values
    missing = {name for name in OPTION_NAMES if name in signature.parameters} - set(SCHEDULER_OPTIONS[class_name])
    assert missing <= OVERRULED.get(class_name, set())


#: what these classes take and then change, or have one value of
OVERRULED = {
    "DEISMultistepScheduler": {"algorithm_type", "solver_type"},
    "DPMSolverSinglestepScheduler": {"lower_order_final"},
    "DPMSolverMultistepScheduler": {"variance_type"},
}
OVERRULED["DPMSolverSinglestepScheduler"] |= OVERRULED["DPMSolverMultistepScheduler"]


@pytest.mark.parametrize(("class_name", "options"), EVERY_OPTION)
def test_every_value_of_every_option_renders_and_stays_as_it_is(class_name: str, options: dict[str, Any]) -> None:
    try:
        wanted = dict(spec(scheduler=class_name, scheduler_options=options).scheduler_options)
    except SpecError as error:
        assert "unless final_sigmas_type is sigma_min" in str(error)  # noqa: PT017
        wanted = options | {"final_sigmas_type": "sigma_min"}
    seed = {"noise_sampler_seed": [2**64 - 1]} if class_name == "DPMSolverSDEScheduler" else {}
    for num_steps in (1, 2, 3, 10):
        scheduler = fresh_scheduler(class_name, SDXL_CONFIG, **wanted, **seed)
        assert last_sample(scheduler, num_steps).isfinite().all(), num_steps
        assert {name: scheduler.config[name] for name in wanted} == wanted, num_steps


def last_sample(scheduler: Any, num_steps: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    scheduler.set_timesteps(num_steps)
    sample = torch.randn(1, 4, 8, 8, generator=generator) * scheduler.init_noise_sigma
    draws = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
    for timestep in scheduler.timesteps:
        noise = scheduler.scale_model_input(sample, timestep) * 0.5
        sample = scheduler.step(noise, timestep, sample, return_dict=False, **draws)[0]
    return sample


@pytest.mark.parametrize(
    ("name", "class_name", "options"),
    [
        ("DPM++ 2M Karras", "DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
        ("DPM++ 2M SDE Exponential", "DPMSolverMultistepScheduler",
         {"algorithm_type": "sde-dpmsolver++", "use_exponential_sigmas": True}),
        ("DPM++ SDE Karras", "DPMSolverSDEScheduler", {"use_karras_sigmas": True}),
        ("DPM2 a Karras", "KDPM2AncestralDiscreteScheduler", {"use_karras_sigmas": True}),
        ("LMS Karras", "LMSDiscreteScheduler", {"use_karras_sigmas": True}),
        ("Euler beta", "EulerDiscreteScheduler", {"use_beta_sigmas": True}),
        ("HeunDiscreteScheduler karras", "HeunDiscreteScheduler", {"use_karras_sigmas": True}),
        ("Euler a", "EulerAncestralDiscreteScheduler", {}),
        ("DPM2", "KDPM2DiscreteScheduler", {}),
        ("PLMS", "PNDMScheduler", {}),
        ("UniPC", "UniPCMultistepScheduler", {}),
    ],
)  # fmt: skip
def test_a1111s_names_are_a_scheduler_and_its_options(name: str, class_name: str, options: dict[str, Any]) -> None:
    one = spec(scheduler=name)
    assert (one.scheduler, dict(one.scheduler_options)) == (class_name, options)
    assert one.digest == spec(scheduler=class_name, scheduler_options=options).digest


@pytest.mark.parametrize("short", [*SCHEDULERS, "dpm++ 2m sde"])
def test_the_name_written_for_a1111_is_read_as_the_same_scheduler(short: str) -> None:
    one = spec(scheduler=short)
    name, others = a1111_sampler(one.scheduler, one.scheduler_options)
    assert name[0].isupper()
    assert spec(scheduler=name) == one
    assert others == ()


@pytest.mark.parametrize(
    ("scheduler", "options", "name", "others"),
    [
        ("euler a", {}, "Euler a", {}),
        ("pndm", {}, "PLMS", {}),
        ("unipc", {}, "UniPC", {}),
        ("deis", {}, "DEIS", {}),
        ("dpm++ 2s", {"algorithm_type": "sde-dpmsolver++"}, "DPM++ 2S", {"algorithm_type": "sde-dpmsolver++"}),
        ("DPM++ 2M Karras", {}, "DPM++ 2M", {"use_karras_sigmas": True}),
        ("DPM++ 2M SDE", {"solver_type": "heun"}, "DPM++ 2M SDE", {"solver_type": "heun"}),
        ("dpm++ 2m", {"algorithm_type": "dpmsolver++"}, "DPM++ 2M", {"algorithm_type": "dpmsolver++"}),
    ],
)
def test_a1111s_spelling_and_what_it_leaves_to_be_said(
    scheduler: str, options: dict[str, Any], name: str, others: dict[str, Any]
) -> None:
    one = spec(scheduler=scheduler, scheduler_options=options)
    assert a1111_sampler(one.scheduler, one.scheduler_options) == (name, tuple(others.items()))


def test_options_beside_a_name_that_has_one_are_added_to_it() -> None:
    one = spec(scheduler="DPM++ 2M Karras", scheduler_options={"euler_at_final": "true", "use_karras_sigmas": "True"})
    assert one.scheduler_options == (("euler_at_final", True), ("use_karras_sigmas", True))


@pytest.mark.parametrize(
    ("scheduler", "options", "sentence"),
    [
        ("ddim", {"use_karras_sigmas": True},
         "scheduler_options.use_karras_sigmas: True: is no option of DDIMScheduler; it has timestep_spacing"),
        ("euler a karras", None,
         "scheduler_options.use_karras_sigmas: True: is no option of EulerAncestralDiscreteScheduler; it has"),
        ("euler", {"karras": True}, "scheduler_options.karras: True: is no option of EulerDiscreteScheduler; it has"),
        ("euler", {"use_karras_sigmas": 1}, "scheduler_options.use_karras_sigmas: 1: is not one of false, true"),
        ("euler", {"timestep_spacing": "even"}, "'even': is not one of leading, linspace, trailing"),
        ("dpm++ 2m", {"solver_order": True}, "scheduler_options.solver_order: True: is not one of 1, 2, 3"),
        ("dpm++ 2m", {"solver_order": 2.0}, "is not one of 1, 2, 3"),
        ("dpm++ 2m", {"algorithm_type": "dpmsolver"}, "is not one of dpmsolver++, sde-dpmsolver++"),
        ("unipc", {"solver_type": "midpoint"}, "is not one of bh1, bh2"),
        ("unipc", {"solver_type": "bh1"}, "gives no image unless final_sigmas_type is sigma_min"),
        ("euler", {"use_karras_sigmas": True, "use_beta_sigmas": True},
         "scheduler_options.use_karras_sigmas: True: excludes use_beta_sigmas"),
        ("dpm++ 2m karras", {"use_lu_lambdas": "true"}, "excludes use_karras_sigmas"),
        ("dpm++ 2m karras", {"use_karras_sigmas": "false"}, "contradicts the name 'dpm++ 2m karras'"),
        ("euler", "karras", "scheduler_options: 'karras': should be an object of options"),
        ("karras", None, "unknown scheduler 'karras'"),
        ("dpm++ 2s a", None, "unknown scheduler 'dpm++ 2s a'"),
    ],
)  # fmt: skip
def test_what_a_scheduler_cannot_do_is_refused_by_name(scheduler: str, options: Any, sentence: str) -> None:
    given = {} if options is None else {"scheduler_options": options}
    assert sentence in refusal(scheduler=scheduler, **given)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_documented_options_are_those_of_the_table(name: str) -> None:
    (row,) = re.findall(rf"^\| `{re.escape(name)}` \| `\w+` \|.*$", RENDERING, re.M)
    cells = row.split("|")
    schedules = {"use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"} if cells[4].strip() else set()
    assert set(re.findall(r"`(\w+)`", cells[5])) | schedules == set(SCHEDULER_OPTIONS[SCHEDULERS[name]])
