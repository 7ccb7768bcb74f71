"""What is unusual about a spec though it can be rendered: said when it is submitted, and never changed.

The advice is about what SDXL's base and refiner were trained for, so it is for pairs with trained weights.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from schemas.buckets import has_trained_pixel_count, nearest_bucket
from schemas.combinations import num_image_to_image_steps
from schemas.schedulers import SchedulerOptions
from schemas.spec import JobSpec
from schemas.timesteps import steps_of_both

_FEWEST_REFINER_STEPS: Final = 3
_EARLIEST_START: Final = 0.7
#: batches seldom mix more kinds of rows than this
_REMEMBERED: Final = 1_024


@dataclass(frozen=True)
class Advice:
    """``code``: the kind, for programs. ``sentence``: for people; the numbers in it are those of this spec."""

    code: str
    sentence: str


class _Handoff(NamedTuple):
    """What decides the steps of both sides, and nothing that differs from row to row."""

    scheduler: str
    options: SchedulerOptions
    num_steps: int
    #: img2img begins after so many
    num_left_out: int
    start: float | None
    start_percent: float | None
    num_base_steps: int | None
    is_lossless: bool


def advice(spec: JobSpec) -> tuple[Advice, ...]:
    """Every kind of advice that the spec calls for, each once."""
    on_size = _on_size(spec.width, spec.height)
    return on_size + _on_handoff(_handoff(spec)) if spec.refiner.mode == "ensemble" else on_size


@lru_cache(maxsize=_REMEMBERED)
def _on_size(width: int, height: int) -> tuple[Advice, ...]:
    if has_trained_pixel_count(width, height):
        return ()
    nearest = nearest_bucket(width, height)
    sentence = (
        f"{width}×{height} is {width * height / 1e6:.2f} megapixels; SDXL was trained at about 1.05,"
        f" which is {nearest.width}×{nearest.height} for the nearest ratio (`nightshift sizes` lists all)"
    )
    return (Advice("pixel_count", sentence),)


def _handoff(spec: JobSpec) -> _Handoff:
    num_steps, refiner = spec.num_inference_steps, spec.refiner
    num_left_out = 0 if spec.strength is None else num_steps - num_image_to_image_steps(num_steps, spec.strength)
    return _Handoff(
        spec.scheduler,
        spec.scheduler_options,
        num_steps,
        num_left_out,
        refiner.start,
        refiner.start_percent,
        refiner.num_base_steps(num_steps),
        refiner.handoff == "lossless",
    )


@lru_cache(maxsize=_REMEMBERED)
def _on_handoff(handoff: _Handoff) -> tuple[Advice, ...]:
    counted = _steps_of_both(handoff)
    return (*(_on_steps(*counted) if counted else ()), *_on_start(handoff))


def _steps_of_both(handoff: _Handoff) -> tuple[int, int] | None:
    """None where it cannot be told, as where diffusers' own handoff cuts a step in two."""
    if handoff.num_base_steps is not None:
        counted: tuple[int, int] | None = (handoff.num_base_steps, handoff.num_steps - handoff.num_base_steps)
    elif handoff.start is not None and handoff.is_lossless:
        counted = steps_of_both(handoff.scheduler, dict(handoff.options), handoff.num_steps, handoff.start)
    else:
        counted = None
    return None if counted is None else (max(counted[0] - handoff.num_left_out, 0), counted[1])


def _on_steps(base: int, refiner: int) -> tuple[Advice, ...]:
    if not base or not refiner:
        side, remedy = ("base", "later") if refiner else ("refiner", "earlier")
        sentence = f"the handoff leaves the {side} no step, so such a job fails when it is rendered;"
        return (Advice("no_step", f"{sentence} hand off {remedy}, or set refiner.mode to off"),)
    if refiner < _FEWEST_REFINER_STEPS:
        sentence = f"the refiner gets {refiner} of {base + refiner} steps, which hardly shows;"
        return (Advice("few_refiner_steps", f"{sentence} usual are the last 10 to 15 % of 30 to 40 steps"),)
    return ()


def _on_start(handoff: _Handoff) -> tuple[Advice, ...]:
    """As the start is given, in noise or in steps: with Karras sigmas the two are far apart."""
    if handoff.start is not None:
        share, said = handoff.start, f"at {handoff.start:g} of the noise schedule"
    elif handoff.start_percent is not None:
        share, said = handoff.start_percent / 100, f"after {handoff.start_percent:g} % of the steps"
    else:
        num_base_steps = handoff.num_base_steps or 0
        share, said = num_base_steps / handoff.num_steps, f"after {num_base_steps} of {handoff.num_steps} steps"
    if share >= _EARLIEST_START:
        return ()
    sentence = f"the refiner starts {said}; it refines and cannot compose, so 0.8 (80 %) or later is usual"
    return (Advice("early_handoff", sentence),)
