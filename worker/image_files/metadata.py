"""What an image file says of itself: A1111's ``parameters``, the JSON record, and the XMP that marks it as generated.

Sources: A1111's infotext format; IPTC's digital source type vocabulary. Only what is reproducible goes in.
"""

import json
from typing import Any, Final

from schemas.provenance import Environment, Provenance, image_record
from schemas.schedulers import SCHEDULE_TYPES, a1111_sampler
from schemas.spec import JobSpec
from worker.image_files.containers import Metadata

_SOURCE_TYPE: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_XMP: Final = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
    f' Iptc4xmpExt:DigitalSourceType="{_SOURCE_TYPE}"/>'
    '</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)


def image_metadata(spec: JobSpec, provenance: Provenance, environment: Environment, meta: dict[str, str]) -> Metadata:
    """The same in every format."""
    record = image_record(spec, provenance, environment, meta)
    return Metadata(parameters_text(spec, provenance, environment), record, _XMP)


def parameters_text(spec: JobSpec, provenance: Provenance, environment: Environment) -> str:
    """A1111's text: prompt, negative prompt, and one line of settings."""
    lines = [_read(spec, "prompt")]
    if negative := _read(spec, "negative_prompt"):
        lines.append(f"Negative prompt: {negative}")
    settings = {
        **_settings(spec, environment),
        **_refiner(spec, provenance, environment),
        "Version": f"nightshift {environment.versions['nightshift']}",
    }
    return "\n".join([*lines, ", ".join(f"{key}: {_quoted(value)}" for key, value in settings.items())])


def _read(spec: JobSpec, field: str) -> Any:
    """A prompt or scale as the base reads it; as the refiner does where the base has no part."""
    own = getattr(spec.refiner, field)
    return own if spec.refiner.mode == "only" and own is not None else getattr(spec, field)


def _settings(spec: JobSpec, environment: Environment) -> dict[str, Any]:
    return {
        "Steps": spec.num_inference_steps,
        **_sampler(spec),
        "CFG scale": f"{_read(spec, 'guidance_scale'):g}",
        "Seed": spec.seed,
        "Size": f"{spec.width}x{spec.height}",
        **_where_given(spec),
        "Model hash": environment.refiner_hash if spec.refiner.mode == "only" else environment.base_hash,
        "Model": environment.refiner if spec.refiner.mode == "only" else environment.base,
    }


def _where_given(spec: JobSpec) -> dict[str, str]:
    """A1111 counts the last layer as 1, diffusers the penultimate one as 0. Its "Lora hashes" are of the weights alone,
    without the file's header, and not the record's sha256; so they are left out."""
    found = {}
    if spec.strength is not None:
        found["Denoising strength"] = f"{spec.strength:g}"
    if spec.clip_skip is not None:
        found["Clip skip"] = str(spec.clip_skip + 2)
    if spec.guidance_rescale:
        found["CFG rescale"] = f"{spec.guidance_rescale:g}"
    if spec.loras:
        found["Loras"] = " ".join(f"<lora:{lora.name}:{lora.weight:g}>" for lora in spec.loras)
    return found


def _sampler(spec: JobSpec) -> dict[str, str]:
    """A1111's "Sampler" and "Schedule type", and the other options as they are, for which it has no name."""
    sampler, options = a1111_sampler(spec.scheduler, spec.scheduler_options)
    kind = next((kind for kind, option in SCHEDULE_TYPES.items() if (option, True) in options), None)
    found = {"Sampler": sampler} if kind is None else {"Sampler": sampler, "Schedule type": kind.capitalize()}
    others = [f"{name}={value}" for name, value in options if name not in SCHEDULE_TYPES.values()]
    return {**found, "Scheduler options": " ".join(others)} if others else found


def _refiner(spec: JobSpec, provenance: Provenance, environment: Environment) -> dict[str, Any]:
    """``Refiner`` and ``Refiner switch at`` are A1111's; the steps that really ran, and the sigma, are ours."""
    if spec.refiner.mode == "off":
        return {}
    found = {
        "Refiner": f"{environment.refiner} [{environment.refiner_hash}]",
        **_place(spec, provenance),
        "Handoff": provenance.handoff,
        "Base steps": provenance.base_steps,
        "Refiner steps": provenance.refiner_steps,
    }
    return found if provenance.handoff_sigma is None else {**found, "Handoff sigma": f"{provenance.handoff_sigma:.6g}"}


def _place(spec: JobSpec, provenance: Provenance) -> dict[str, str]:
    """Where the refiner comes in: at a share of the steps, or with new noise on a finished picture."""
    if spec.refiner.strength is not None:
        return {"Refiner strength": f"{spec.refiner.strength:g}"}
    num_base_steps = spec.refiner.num_base_steps(spec.num_inference_steps)
    switch = spec.refiner.start if num_base_steps is None else num_base_steps / spec.num_inference_steps
    return {"Refiner switch at": f"{switch:g}"}


def _quoted(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(sign in text for sign in ",:\n") else text
