"""Fields of a spec that make sense only together with others. What diffusers would ignore is named here and refused."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from schemas.errors import FieldProblem
from schemas.schedulers import SIGMA_SCHEDULES

if TYPE_CHECKING:
    from schemas.spec import JobSpec

_NUM_TRAIN_TIMESTEPS: Final = 1000
#: what the base alone is told
OF_THE_BASE: Final = (
    "prompt_2", "negative_prompt_2", "guidance_rescale", "clip_skip", "loras", "strength", "target_size",
    "negative_target_size",
)  # fmt: skip


def combination_problem(spec: "JobSpec") -> FieldProblem | None:
    """The first combination that cannot be rendered as it is written."""
    return next((problem for check in _CHECKS for problem in check(spec)), None)


def base_is_guided(spec: "JobSpec") -> bool:
    """As diffusers' ``do_classifier_free_guidance``."""
    return spec.guidance_scale > 1 and spec.refiner.mode != "only"


def refiner_is_guided(spec: "JobSpec") -> bool:
    return refiner_guidance(spec) > 1 and spec.refiner.mode != "off"


def refiner_guidance(spec: "JobSpec") -> float:
    """The refiner's own guidance scale, else the base's."""
    return spec.guidance_scale if spec.refiner.guidance_scale is None else spec.refiner.guidance_scale


def num_image_to_image_steps(num_inference_steps: int, strength: float) -> int:
    """The steps that run from an image on, as diffusers' img2img counts them."""
    return min(int(num_inference_steps * strength), num_inference_steps)


def _refused(spec: "JobSpec", field: str, reason: str, *beside: str) -> FieldProblem:
    return FieldProblem(field, getattr(spec, field), reason, beside)


def _init_image(spec: "JobSpec") -> Iterator[FieldProblem]:
    only = spec.refiner.mode == "only"
    if only and spec.init_image is None:
        reason = "needs an init_image: the refiner cannot begin a picture"
        yield FieldProblem("refiner.mode", "only", reason, ("init_image",))
    if spec.strength is not None and spec.init_image is None:
        reason = "says nothing without an init_image; that of two stages is refiner.strength"
        yield _refused(spec, "strength", reason, "init_image")
    if spec.init_image is not None and spec.strength is None and not only:
        reason = "is missing: an init_image needs it; 0.3 changes little, 0.8 a lot"
        yield FieldProblem("strength", None, reason, ("init_image", "refiner.mode"))


def _refiner_alone(spec: "JobSpec") -> Iterator[FieldProblem]:
    if spec.refiner.mode != "only":
        return
    for field in OF_THE_BASE:
        if getattr(spec, field):
            instead = "; the refiner's is refiner.strength" if field == "strength" else ""
            reason = f"is the base's, which has no part with refiner.mode only{instead}"
            yield _refused(spec, field, reason, "refiner.mode")


def _guidance(spec: "JobSpec") -> Iterator[FieldProblem]:
    """What is told to nobody: each negative field has its readers, and those look at it only with guidance."""
    scales = ("guidance_scale", "refiner.mode", "refiner.guidance_scale", "refiner.negative_prompt")
    base, refiner = base_is_guided(spec), refiner_is_guided(spec)
    for field in ("guidance_rescale", "negative_prompt_2", "negative_target_size"):
        if getattr(spec, field) and not base:
            yield _refused(spec, field, "says nothing unless the base's guidance_scale is above 1", *scales)
    for field in ("negative_prompt", "negative_original_size", "negative_crops_coords_top_left"):
        read = base or (refiner and (field != "negative_prompt" or spec.refiner.negative_prompt is None))
        if getattr(spec, field) is not None and not read:
            yield _refused(spec, field, "says nothing unless guidance_scale is above 1", *scales)
    for field in ("negative_prompt", "negative_aesthetic_score"):
        value, default = getattr(spec.refiner, field), type(spec.refiner).model_fields[field].default
        if value != default and not refiner:
            reason = "says nothing unless the refiner's guidance_scale is above 1"
            yield FieldProblem(f"refiner.{field}", value, reason, scales)


def _negatives(spec: "JobSpec") -> Iterator[FieldProblem]:
    """The base looks at its negative sizes only where both are given, the refiner at each."""
    if spec.negative_prompt_2 is not None and spec.negative_prompt is None:
        yield _refused(spec, "negative_prompt_2", "says nothing without a negative_prompt", "negative_prompt")
    if not base_is_guided(spec):
        return
    sizes = {name: getattr(spec, name) for name in ("negative_original_size", "negative_target_size")}
    missing = [name for name, size in sizes.items() if size is None]
    given = next((name for name, size in sizes.items() if size is not None), "negative_crops_coords_top_left")
    if missing and getattr(spec, given) is not None:
        yield _refused(spec, given, f"says nothing without {' and '.join(missing)}", *missing)


def _diffusers_handoff(spec: "JobSpec") -> Iterator[FieldProblem]:
    """It is there to match old images: those of its documentation, from a prompt."""
    if spec.refiner.mode != "ensemble" or spec.refiner.handoff != "diffusers":
        return
    for field, why in (("init_image", "begins with noise"), ("negative_original_size", "mixes up negative sizes")):
        if getattr(spec, field) is not None:
            yield _refused(
                spec, field, f"is not possible with refiner.handoff diffusers, which {why}", "refiner.handoff"
            )


def _clip_skip(spec: "JobSpec") -> Iterator[FieldProblem]:
    if spec.clip_skip is not None and spec.prompt_syntax == "compel":
        reason = "is not possible with prompt_syntax compel, which reads the penultimate layer"
        yield _refused(spec, "clip_skip", reason, "prompt_syntax")


def _trailing(spec: "JobSpec") -> Iterator[FieldProblem]:
    """diffusers counts down from 1000 by a fraction; rounding gives some numbers of steps one more, at timestep -1."""
    options, num_steps = dict(spec.scheduler_options), spec.num_inference_steps
    if options.get("timestep_spacing") != "trailing" or any(options.get(kind) for kind in SIGMA_SCHEDULES):
        return
    if not _counts_down_right(num_steps):
        right = next(number for number in range(num_steps, 0, -1) if _counts_down_right(number))
        reason = f"gets one step too many from diffusers with timestep_spacing trailing; {right} would be right"
        yield _refused(spec, "num_inference_steps", reason, "scheduler_options.timestep_spacing", "scheduler")


def _counts_down_right(num_steps: int) -> bool:
    return math.ceil(_NUM_TRAIN_TIMESTEPS / (_NUM_TRAIN_TIMESTEPS / num_steps)) == num_steps


def _handoff(spec: "JobSpec") -> Iterator[FieldProblem]:
    """A handoff in steps leaves both sides one. ``start`` counts noise: only a scheduler's timesteps can tell."""
    refiner, num_steps = spec.refiner, spec.num_inference_steps
    num_base_steps = refiner.num_base_steps(num_steps)
    if refiner.mode != "ensemble" or num_base_steps is None:
        return
    num_left_out = 0 if spec.strength is None else num_steps - num_image_to_image_steps(num_steps, spec.strength)
    if num_left_out < num_base_steps < num_steps:
        return
    name = "start_step" if refiner.start_step is not None else "start_percent"
    num_run = max(num_base_steps - num_left_out, 0)
    reason = f"leaves {num_run} of {num_steps} steps to the base; base and refiner need one each"
    yield FieldProblem(f"refiner.{name}", getattr(refiner, name), reason, ("num_inference_steps", "strength"))


def _image_to_image_steps(spec: "JobSpec") -> Iterator[FieldProblem]:
    for field, strength in (("strength", spec.strength), ("refiner.strength", spec.refiner.strength)):
        if strength is not None and num_image_to_image_steps(spec.num_inference_steps, strength) < 1:
            reason = f"leaves none of {spec.num_inference_steps} steps"
            yield FieldProblem(field, strength, reason, ("num_inference_steps",))


_CHECKS: Final = (
    _init_image, _refiner_alone, _guidance, _negatives, _diffusers_handoff, _clip_skip, _trailing, _handoff,
    _image_to_image_steps,
)  # fmt: skip
