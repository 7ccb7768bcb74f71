"""The schedulers that a spec may name, and the options that each of them has.

Names: diffusers' class names, the short names people use, and A1111's, where the noise schedule is part of the name
("DPM++ 2M Karras"). Every option takes one of a few values; the tables stand here, because nobody imports torch here,
and a test holds them against diffusers' own signatures.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from schemas.errors import FieldProblem, SpecError
from schemas.printable import shown

Option = bool | int | str
#: sorted by name: hashable, and equal options are equal
SchedulerOptions = tuple[tuple[str, Option], ...]
Choices = Mapping[str, tuple[Option, ...]]

#: short name → diffusers class name
SCHEDULERS: Final = MappingProxyType(
    {
        "euler": "EulerDiscreteScheduler",
        "euler a": "EulerAncestralDiscreteScheduler",
        "heun": "HeunDiscreteScheduler",
        "lms": "LMSDiscreteScheduler",
        "ddim": "DDIMScheduler",
        "ddpm": "DDPMScheduler",
        "pndm": "PNDMScheduler",
        "dpm2": "KDPM2DiscreteScheduler",
        "dpm2 a": "KDPM2AncestralDiscreteScheduler",
        "dpm++ 2m": "DPMSolverMultistepScheduler",
        "dpm++ 2s": "DPMSolverSinglestepScheduler",
        "dpm++ sde": "DPMSolverSDEScheduler",
        "deis": "DEISMultistepScheduler",
        "unipc": "UniPCMultistepScheduler",
    }
)
_BY_LOWER_CLASS: Final = {class_name.lower(): class_name for class_name in SCHEDULERS.values()}
_OTHER_NAMES: Final = MappingProxyType(
    {"plms": "pndm", "kdpm2": "dpm2", "kdpm2 a": "dpm2 a", "euler ancestral": "euler a", "dpm2 ancestral": "dpm2 a"}
)
#: names that stand for a scheduler and an option of it
_VARIANTS: Final[Mapping[str, tuple[str, dict[str, Option]]]] = MappingProxyType(
    {"dpm++ 2m sde": ("dpm++ 2m", {"algorithm_type": "sde-dpmsolver++"})}
)
#: short name → as A1111 spells it in its text. SDXL's PNDM, which has no Runge-Kutta steps, is its PLMS. What A1111 has
#: not (DDPM, DEIS, and DPM++ 2S, which is no "DPM++ 2S a") is spelled likewise.
_A1111_NAMES: Final = MappingProxyType(
    {
        "euler": "Euler", "euler a": "Euler a", "heun": "Heun", "lms": "LMS", "ddim": "DDIM", "ddpm": "DDPM",
        "pndm": "PLMS", "dpm2": "DPM2", "dpm2 a": "DPM2 a", "dpm++ 2m": "DPM++ 2M", "dpm++ 2s": "DPM++ 2S",
        "dpm++ sde": "DPM++ SDE", "deis": "DEIS", "unipc": "UniPC",
        "dpm++ 2m sde": "DPM++ 2M SDE",
    }
)  # fmt: skip
#: what A1111 calls the schedule type → the option
SCHEDULE_TYPES: Final = MappingProxyType(
    {"karras": "use_karras_sigmas", "exponential": "use_exponential_sigmas", "beta": "use_beta_sigmas"}
)

_SWITCH: Final = (False, True)
_SIGMAS: Final[Choices] = dict.fromkeys(SCHEDULE_TYPES.values(), _SWITCH)
_SPACING: Final[Choices] = {"timestep_spacing": ("leading", "linspace", "trailing")}
_FINAL_SIGMA: Final[Choices] = {"final_sigmas_type": ("zero", "sigma_min")}
_ORDER: Final[Choices] = {"solver_order": (1, 2, 3)}
_LOWER_ORDER: Final[Choices] = {"lower_order_final": _SWITCH}
_DPM_SOLVER: Final[Choices] = {
    **_ORDER,
    "algorithm_type": ("dpmsolver++", "sde-dpmsolver++"),  # diffusers is about to drop the two without ++
    "solver_type": ("midpoint", "heun"),
}

#: class name → option → its values. Left out is what diffusers overrules, and what belongs to the weights (betas).
SCHEDULER_OPTIONS: Final[Mapping[str, Choices]] = MappingProxyType(
    {
        "EulerDiscreteScheduler": {
            **_SIGMAS, **_SPACING, **_FINAL_SIGMA, "interpolation_type": ("linear", "log_linear"),
        },
        "EulerAncestralDiscreteScheduler": _SPACING,
        "HeunDiscreteScheduler": {**_SIGMAS, **_SPACING},
        "LMSDiscreteScheduler": {**_SIGMAS, **_SPACING},
        "DDIMScheduler": _SPACING,
        "DDPMScheduler": {
            **_SPACING, "variance_type": ("fixed_small", "fixed_small_log", "fixed_large"),
        },
        "PNDMScheduler": _SPACING,
        "KDPM2DiscreteScheduler": {**_SIGMAS, **_SPACING},
        "KDPM2AncestralDiscreteScheduler": {**_SIGMAS, **_SPACING},
        "DPMSolverMultistepScheduler": {
            **_SIGMAS, "use_lu_lambdas": _SWITCH, **_SPACING, **_DPM_SOLVER, **_LOWER_ORDER, "euler_at_final": _SWITCH,
            **_FINAL_SIGMA,
        },
        "DPMSolverSinglestepScheduler": {**_SIGMAS, **_DPM_SOLVER, **_FINAL_SIGMA},
        "DPMSolverSDEScheduler": {**_SIGMAS, **_SPACING},
        "DEISMultistepScheduler": {**_SIGMAS, **_SPACING, **_ORDER, **_LOWER_ORDER},
        "UniPCMultistepScheduler": {
            **_SIGMAS, **_SPACING, **_ORDER, "solver_type": ("bh1", "bh2"), **_LOWER_ORDER, **_FINAL_SIGMA,
            "predict_x0": _SWITCH,
        },
    }
)  # fmt: skip
#: every option that some scheduler has
OPTION_NAMES: Final = tuple(sorted({name for choices in SCHEDULER_OPTIONS.values() for name in choices}))
#: with its default last sigma, which is zero, UniPC divides by zero where one of these is asked for
_UNIPC_NEEDS_SIGMA_MIN: Final = (("solver_type", "bh1"), ("predict_x0", False), ("lower_order_final", False))
#: options that give a noise schedule of their own, whatever the timesteps' spacing would be
SIGMA_SCHEDULES: Final = (*SCHEDULE_TYPES.values(), "use_lu_lambdas")
#: whose sigma schedules reach over all timesteps, spaced or not
_MULTISTEP: Final = ("DPMSolverMultistepScheduler", "DEISMultistepScheduler", "UniPCMultistepScheduler")


def scheduler_class_name(name: str) -> str:
    """The diffusers class name for any name of a scheduler, without regard to case or ``_``.

    Raises:
        SpecError: the name is no scheduler that Nightshift renders with.
    """
    return named_scheduler(name)[0]


def named_scheduler(name: str) -> tuple[str, dict[str, Option]]:
    """The class name, and the options that are part of the name: ``dpm++ 2m karras`` has ``use_karras_sigmas``.

    Raises:
        SpecError: see ``scheduler_class_name``.
    """
    plain = " ".join(name.lower().replace("_", " ").split())
    stem, _, last = plain.rpartition(" ")
    if stem and last in SCHEDULE_TYPES:
        class_name, options = _found(stem, name)
        return class_name, {**options, SCHEDULE_TYPES[last]: True}
    return _found(plain, name)


def _found(plain: str, name: str) -> tuple[str, dict[str, Option]]:
    short, options = _VARIANTS.get(plain, (_OTHER_NAMES.get(plain, plain), {}))
    class_name = SCHEDULERS.get(short) or _BY_LOWER_CLASS.get(short)
    if class_name is None:
        known = ", ".join(f'"{known}"' for known in SCHEDULERS)
        raise SpecError(f"unknown scheduler {name[:60]!r}; known are {known} and their diffusers class names")
    return class_name, options


def short_scheduler_name(class_name: str) -> str:
    """The short name of a diffusers class name, for captions and A1111 text."""
    return next(short for short, cls in SCHEDULERS.items() if cls == class_name)


def a1111_sampler(class_name: str, options: SchedulerOptions) -> tuple[str, SchedulerOptions]:
    """A1111's name for the scheduler, and the options that are not part of it. The schedule's type is none."""
    short = short_scheduler_name(class_name)
    for variant, (stem, implied) in _VARIANTS.items():
        if stem == short and implied.items() <= dict(options).items():
            return _A1111_NAMES[variant], tuple(option for option in options if option[0] not in implied)
    return _A1111_NAMES[short], options


def scheduler_options(class_name: str, given: Mapping[str, object]) -> SchedulerOptions:
    """The options, checked against the class. Text (a manifest's cell) may stand for a number or a switch.

    Raises:
        SpecError: the class has no such option, the value is none of its values, or two exclude each other. Its one
            problem names the field.
    """
    options = tuple(sorted((name, _value(class_name, name, value)) for name, value in given.items()))
    chosen = [name for name, value in options if name in SIGMA_SCHEDULES and value]
    if len(chosen) > 1:
        raise _refusal(chosen[1], True, f"excludes {chosen[0]}: there is one noise schedule")
    _refuse_what_does_nothing(class_name, dict(options))
    if class_name == "UniPCMultistepScheduler" and ("final_sigmas_type", "sigma_min") not in options:
        _refuse_infinite(options)
    return options


def _refuse_what_does_nothing(class_name: str, options: dict[str, Option]) -> None:
    schedule = next((name for name in SIGMA_SCHEDULES if options.get(name)), None)
    if class_name in _MULTISTEP and schedule and "timestep_spacing" in options:
        raise _refusal("timestep_spacing", options["timestep_spacing"], f"says nothing beside {schedule}")
    for name, value in (("solver_type", "heun"), ("lower_order_final", False)):
        if options.get("solver_order") == 1 and options.get(name) == value:
            raise _refusal(name, value, "says nothing with solver_order 1")


def _refuse_infinite(options: SchedulerOptions) -> None:
    for name, value in options:
        if (name, value) in _UNIPC_NEEDS_SIGMA_MIN:
            raise _refusal(name, value, "gives no image unless final_sigmas_type is sigma_min")


def _value(class_name: str, name: str, value: object) -> Option:
    choices = SCHEDULER_OPTIONS[class_name]
    if name not in choices:
        raise _refusal(name, value, f"is no option of {class_name}; it has {', '.join(choices)}")
    for choice in choices[name]:
        if stands_for(value, choice):
            return choice
    known = ", ".join(str(choice).lower() for choice in choices[name])
    raise _refusal(name, value, f"is not one of {known}")


def stands_for(value: object, choice: Option) -> bool:
    """Whether the value is the choice, or is how a manifest's cell says it."""
    if isinstance(value, str):
        return value.strip().lower() == str(choice).lower()
    return type(value) is type(choice) and value == choice


def _refusal(option: str, value: object, reason: str) -> SpecError:
    problem = FieldProblem(f"scheduler_options.{option}", value, reason, beside=("scheduler",))
    return SpecError(f"{problem.field}: {shown(value)}: {reason}", [problem])
