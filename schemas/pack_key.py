"""The pack key of a spec, as text: what jobs have in common that may share a forward pass, and so a pack.

``SIZE/STEPS/SCHEDULER/SHAPE/TOLD``. SHAPE and TOLD are hashes, or nothing where all is as by default, and what is
nothing at the end is left out. Without TOLD it is the shape that a device takes on for these jobs.
"""

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from schemas.combinations import base_is_guided, refiner_is_guided
from schemas.digest import canonical_json, sha256_hex
from schemas.fields import SpecPart
from schemas.refiner import STARTS

if TYPE_CHECKING:
    from schemas.spec import JobSpec

HASH_CHARACTERS: Final = 16
#: what a forward pass is told once for all of its images
_TOLD_ONCE: Final = ("guidance_scale", "guidance_rescale", "strength")
_TOLD_ONCE_OF_THE_REFINER: Final = (*STARTS, "mode", "handoff", "strength", "guidance_scale")
#: and what diffusers' pipelines are told once, too
_TOLD_TO_PIPELINES: Final = ("original_size", "target_size", "crops_coords_top_left")
_TOLD_TO_PIPELINES_OF_THE_REFINER: Final = ("aesthetic_score", "negative_aesthetic_score")


def pack_key(spec: "JobSpec") -> str:
    """At most 120 characters. Jobs with one key may share a forward pass if their prompts are of equally many chunks,
    which only a worker can count."""
    key = f"{spec.width}x{spec.height}/{spec.num_inference_steps}/{spec.scheduler}"
    return f"{key}/{_hash(_beside_the_size(spec))}/{_hash(_told_once(spec))}".rstrip("/")


def shape_of(pack_key: str) -> str:
    """The part by which devices keep to a shape. Keys of earlier versions are nothing else."""
    return "/".join(pack_key.split("/")[:4]).rstrip("/")


def _hash(content: dict[str, Any]) -> str:
    return sha256_hex(canonical_json(content))[:HASH_CHARACTERS] if content else ""


def _beside_the_size(spec: "JobSpec") -> dict[str, Any]:
    """What else makes the networks others. A side without guidance computes half as many rows."""
    content: dict[str, Any] = {}
    if spec.scheduler_options or spec.loras:
        loras = [lora.model_dump(mode="json") for lora in spec.loras]
        content = {"loras": loras, "options": dict(spec.scheduler_options)}
    sides = (
        ("base", spec.refiner.mode != "only" and not base_is_guided(spec)),
        ("refiner", spec.refiner.mode != "off" and not refiner_is_guided(spec)),
    )
    if unguided := [name for name, is_unguided in sides if is_unguided]:
        content["unguided"] = unguided
    return content


def _told_once(spec: "JobSpec") -> dict[str, Any]:
    """All else (prompts, seeds, ...) is told for each image."""
    told = _changed(spec, _TOLD_ONCE)
    refiner = _changed(spec.refiner, _TOLD_ONCE_OF_THE_REFINER)
    if spec.refiner.handoff == "diffusers":
        told |= _changed(spec, _TOLD_TO_PIPELINES)
        refiner |= _changed(spec.refiner, _TOLD_TO_PIPELINES_OF_THE_REFINER)
    if refiner:
        told["refiner"] = refiner
    if spec.init_image is not None:
        told["init_image"] = True
    return told


def _changed(part: SpecPart, names: tuple[str, ...]) -> dict[str, Any]:
    """What is not as by default, so that a field added later leaves old keys as they were."""
    defaults = _defaults(type(part), names)
    return {name: value for name, default in defaults if (value := getattr(part, name)) != default}


@cache
def _defaults(kind: type[SpecPart], names: tuple[str, ...]) -> list[tuple[str, Any]]:
    return [(name, kind.model_fields[name].default) for name in names]
