"""How many whole steps base and refiner get, worked out without torch, as the worker will count them.

For the noise schedule that SDXL was trained with, and the configuration of its own scheduler. Each formula is that of
diffusers' ``set_timesteps``; a test holds the counts against it.
"""

import math
import operator
from collections.abc import Callable, Mapping
from functools import cache
from itertools import accumulate
from types import MappingProxyType
from typing import Final

from schemas.schedulers import Option

#: SDXL's scheduler configuration: "scaled_linear" betas, and how timesteps are spaced unless a job says otherwise.
_NUM_TRAIN: Final = 1_000
_FIRST_BETA: Final = 0.00085
_LAST_BETA: Final = 0.012
_SPACING: Final = "leading"
_STEPS_OFFSET: Final = 1

_KARRAS_RHO: Final = 7.0
#: alpha and beta of the distribution whose quantiles are the sigmas, https://arxiv.org/abs/2407.12173
_BETA_SHAPE: Final = 0.6
#: diffusers' sigmas are float32: a step so near to the cutoff, in steps, may fall on either side of it.
_TIE: Final = 1e-4

#: They space one step more and drop the last; their other sigmas span the whole schedule.
_MULTISTEP: Final = frozenset({
    "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "DEISMultistepScheduler", "UniPCMultistepScheduler",
})  # fmt: skip
_WHOLE_TIMESTEPS: Final = _MULTISTEP | {"DDIMScheduler", "DDPMScheduler", "PNDMScheduler"}
#: These round the timesteps that they find for ``_ROUNDED`` sigmas; the others cut them, or leave them as they are.
_ROUNDING: Final = _MULTISTEP | {"KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler"}
_ROUNDED: Final = ("use_karras_sigmas", "use_lu_lambdas")


def steps_of_both(
    scheduler: str, options: Mapping[str, Option], num_inference_steps: int, start: float
) -> tuple[int, int] | None:
    """Whole steps of base and refiner for ``refiner.start``: a step is the base's while its timestep is not below
    ``round(1000 - start * 1000)``. None where a rounding error decides.

    ``scheduler``: diffusers' class name; ``options``: those that it has.
    """
    cutoff = round(_NUM_TRAIN - start * _NUM_TRAIN)
    timesteps = _spaced(scheduler, options, num_inference_steps)
    warped = next((option for option in _EVENLY if options.get(option)), None)
    if warped is None:
        num_base = sum(timestep >= cutoff for timestep in timesteps)
        return num_base, len(timesteps) - num_base
    whole = scheduler in _MULTISTEP or options.get("interpolation_type") == "log_linear"
    ends = (_NUM_TRAIN - 1, 0) if whole else (int(timesteps[0]), max(int(timesteps[-1]), 0))
    rounds = scheduler in _ROUNDING and warped in _ROUNDED
    seam = _seam(warped, cutoff - 0.5 if rounds else cutoff, ends, num_inference_steps)
    return None if seam is None else (seam, num_inference_steps - seam)


def _spaced(scheduler: str, options: Mapping[str, Option], num_steps: int) -> list[float]:
    """Timesteps as spaced evenly, the highest first."""
    has_spacing = scheduler != "DPMSolverSinglestepScheduler"
    spacing = options.get("timestep_spacing", _SPACING) if has_spacing else "linspace"
    if spacing == "trailing":
        return _trailing(num_steps)
    dropped = int(scheduler in _MULTISTEP)
    num_spaced = num_steps + dropped
    if spacing == "leading":
        step = _NUM_TRAIN // num_spaced
        rising = [float(place * step + _STEPS_OFFSET) for place in range(num_spaced)]
    else:
        width = (_NUM_TRAIN - 1) / max(num_spaced - 1, 1)
        digits = 0 if scheduler in _WHOLE_TIMESTEPS else 3  # float32 mends what the multiplication loses
        rising = [round(place * width, digits) for place in range(num_spaced)]
    return rising[dropped:][::-1]


def _trailing(num_steps: int) -> list[float]:
    """numpy's ``arange(1000, 0, -1000 / num_steps)``, rounded; it has a step more for some numbers of steps."""
    width = _NUM_TRAIN / num_steps
    fall = (_NUM_TRAIN - width) - _NUM_TRAIN
    return [float(round(_NUM_TRAIN + place * fall) - 1) for place in range(math.ceil(_NUM_TRAIN / width))]


def _seam(option: str, cutoff: float, ends: tuple[int, int], num_steps: int) -> int | None:
    """How many of the sigmas are not below the cutoff's; None in a tie. Cutoff and ends are timesteps, high to low."""
    if cutoff > ends[0]:
        return 0
    if cutoff < ends[1]:
        return num_steps
    if num_steps == 1:
        return None
    sigmas = _sigmas()
    first, last = (sigmas[end] for end in ends)
    between = math.sqrt(sigmas[math.floor(cutoff)] * sigmas[math.ceil(cutoff)])
    start, cut, end = (_EVENLY[option](sigma, last, first) for sigma in (first, between, last))
    place = (start - cut) / (start - end) * (num_steps - 1)
    return None if abs(place - round(place)) < _TIE else math.floor(place) + 1


@cache
def _sigmas() -> list[float]:
    """The noise level of each timestep: sqrt((1 - alpha) / alpha), alpha the product of 1 - beta up to there."""
    first, last = math.sqrt(_FIRST_BETA), math.sqrt(_LAST_BETA)
    betas = ((first + place / (_NUM_TRAIN - 1) * (last - first)) ** 2 for place in range(_NUM_TRAIN))
    alphas = accumulate((1 - beta for beta in betas), operator.mul)
    return [math.sqrt((1 - alpha) / alpha) for alpha in alphas]


def _karras(sigma: float, _low: float, _high: float) -> float:
    """https://arxiv.org/abs/2206.00364, equation 5"""
    return math.pow(sigma, 1 / _KARRAS_RHO)


def _exponential(sigma: float, _low: float, _high: float) -> float:
    return math.log(sigma)


def _beta(sigma: float, low: float, high: float) -> float:
    """The beta distribution's share below; its series for half of it, which is symmetric."""
    below = max((sigma - low) / (high - low), 0.0)  # a rounding error may put the last one below
    if below > 0.5:
        return 1 - _beta(low + high - sigma, low, high)
    shape, term, total = _BETA_SHAPE, 1.0, 0.0
    for place in range(60):  # the terms halve at least
        total += term / (shape + place)
        term *= (place + 1 - shape) / (place + 1) * below
    return math.pow(below, shape) * total * math.gamma(2 * shape) / math.gamma(shape) ** 2


#: option → where a sigma stands on the scale on which the sigmas are evenly spaced
_EVENLY: Final[Mapping[str, Callable[[float, float, float], float]]] = MappingProxyType(
    {
        "use_karras_sigmas": _karras,
        "use_exponential_sigmas": _exponential,
        "use_lu_lambdas": _exponential,
        "use_beta_sigmas": _beta,
    }
)
