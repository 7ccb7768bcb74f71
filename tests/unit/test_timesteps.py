"""The steps of base and refiner, worked out without torch, held against diffusers' own schedulers."""

from collections.abc import Iterator
from copy import copy
from functools import cache
from itertools import product
from typing import Any

import pytest

from schemas.schedulers import SCHEDULER_OPTIONS, Option
from schemas.timesteps import steps_of_both

NUM_STEPS = (1, 2, 7, 20, 30, 40, 100)
#: where it matters, and the ends
STARTS = (0.0004, 0.001, 0.1, 0.333, 0.5, *(n / 200 for n in range(140, 200)), 0.999, 0.9996)
_SCHEDULES = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas")


def schedules(name: str) -> Iterator[dict[str, Option]]:
    """Every combination of the options that move timesteps."""
    choices = SCHEDULER_OPTIONS[name]
    of_one = [{}, *({option: True} for option in _SCHEDULES if option in choices)]
    others = [
        [{option: value} for value in choices.get(option, ())] or [{}]
        for option in ("timestep_spacing", "interpolation_type")
    ]
    for parts in product(of_one, *others):
        yield {option: value for part in parts for option, value in part.items()}


@cache
def unset(name: str) -> Any:
    """diffusers' scheduler with SDXL's configuration. Some take seconds to make, for they begin with 1,000 steps."""
    import diffusers

    from worker.synthetic_pairs.synthetic import _SCHEDULER_CONFIG

    options = {"lower_order_final": True} if name == "DPMSolverSinglestepScheduler" else {}
    return getattr(diffusers, name).from_config(dict(_SCHEDULER_CONFIG), **options)


def rendered(name: str, options: dict[str, Option], num_steps: int) -> list[float]:
    """The timestep of each whole step, as the worker has it."""
    from worker.passes.noise_schedule import step_starts

    scheduler = copy(unset(name))
    scheduler.register_to_config(**options)
    scheduler.set_timesteps(num_steps)
    timesteps: Any = scheduler.timesteps[step_starts(scheduler)].tolist()
    return list(timesteps)


def really(timesteps: list[float], start: float) -> tuple[int, int]:
    num_base = sum(timestep >= round(1000 - start * 1000) for timestep in timesteps)
    return num_base, len(timesteps) - num_base


@pytest.mark.parametrize("name", SCHEDULER_OPTIONS)
def test_the_steps_of_both_are_those_that_the_worker_counts(name: str) -> None:
    num_unknown = num_counted = 0
    for options, num_steps in product(schedules(name), NUM_STEPS):
        timesteps = rendered(name, options, num_steps)
        for start in STARTS:
            found = steps_of_both(name, options, num_steps, start)
            num_counted += 1
            num_unknown += found is None
            assert found in (None, really(timesteps, start)), (options, num_steps, start)
    assert num_unknown < num_counted * 0.15  # a single step of a schedule of sigmas, and ties


@pytest.mark.parametrize(
    ("name", "options", "steps"),
    [
        ("EulerDiscreteScheduler", {}, (32, 8)),
        ("EulerDiscreteScheduler", {"use_karras_sigmas": True}, (25, 15)),
        ("EulerDiscreteScheduler", {"use_karras_sigmas": False}, (32, 8)),
        ("KDPM2DiscreteScheduler", {"use_karras_sigmas": True}, (26, 14)),
        ("DPMSolverSinglestepScheduler", {}, (33, 7)),
    ],
)
def test_the_documented_steps_of_40_at_the_default_start(
    name: str, options: dict[str, Option], steps: tuple[int, int]
) -> None:
    assert steps_of_both(name, options, 40, 0.8) == steps


def test_trailing_makes_a_step_more_of_some_numbers_of_steps() -> None:
    for options, num_steps in (({}, 62), ({"use_karras_sigmas": True}, 61)):
        given = {"timestep_spacing": "trailing", **options}
        timesteps = rendered("EulerDiscreteScheduler", given, 61)
        assert len(timesteps) == num_steps
        assert steps_of_both("EulerDiscreteScheduler", given, 61, 0.9) == really(timesteps, 0.9)


@pytest.mark.parametrize("name", SCHEDULER_OPTIONS)
def test_the_steps_of_a_loaded_pairs_handoff_are_those_foretold(name: str, smallest: Any) -> None:
    from schemas.spec import JobSpec
    from worker.passes.noise_schedule import handoff_step, noise_schedule

    given = [{}, *({option: True} for option in _SCHEDULES[:1] if option in SCHEDULER_OPTIONS[name])]
    for options in given:
        fields = {"prompt": "a", "seed": 1, "num_inference_steps": 24, "scheduler": name, "scheduler_options": options}
        specs = [JobSpec.parse({**fields, "refiner": {"start": start}}) for start in (0.5, 0.8, 0.9)]
        schedule = noise_schedule(smallest, specs)
        for spec in specs:
            num_base = handoff_step(schedule, spec)
            found = steps_of_both(name, options, 24, spec.refiner.start or 0)
            assert found == (num_base, len(schedule.starts) - num_base)
