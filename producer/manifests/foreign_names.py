"""Names that other programs have for fields of a spec: A1111, ComfyUI, Runware, diffusers' scripts. Pure.

A column called so is meta, for it may well be something else; but whoever wrote it should hear of it.
"""

from types import MappingProxyType
from typing import Final

#: name without signs and case → field
_ELSEWHERE: Final = MappingProxyType(
    {
        **dict.fromkeys(("steps", "numsteps", "inferencesteps", "samplingsteps"), "num_inference_steps"),
        **dict.fromkeys(("cfg", "cfgscale", "guidance"), "guidance_scale"),
        **dict.fromkeys(("sampler", "samplername", "samplingmethod", "schedulername"), "scheduler"),
        **dict.fromkeys(("negative", "negprompt", "negativeprompts"), "negative_prompt"),
        **dict.fromkeys(("denoise", "denoisingstrength"), "strength"),
        **dict.fromkeys(("numimages", "numimagesperprompt", "numberresults", "niter"), "count"),
        "noiseseed": "seed",
        "initimages": "init_image",
        "lora": "loras",
        "denoisingstart": "refiner.start",
        "usekarrassigmas": "scheduler_options.use_karras_sigmas",
    }
)


def squashed(name: str) -> str:
    """``guidanceScale``, ``Guidance scale`` and ``guidance_scale`` are one."""
    return "".join(filter(str.isalnum, name.lower()))


def called_elsewhere(name: str) -> str | None:
    """The field that another program calls so; None where none is known to."""
    return _ELSEWHERE.get(squashed(name))
