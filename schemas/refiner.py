"""Refiner: how the refiner takes part in one image."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from schemas.errors import FieldProblem
from schemas.fields import Float, Guidance, Int, NegativePrompt, Prompt, RefusedFieldError, SpecPart

Mode = Literal["ensemble", "img2img", "only", "off"]

#: the fields of which one says where ``ensemble`` hands over
STARTS: Final = ("start", "start_step", "start_percent")
_DEFAULT_STRENGTH: Final = 0.3
#: mode → the fields that say nothing in it, and would be ignored
FOREIGN: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "ensemble": ("strength",),
        "img2img": (*STARTS, "handoff"),
        "only": (*STARTS, "handoff"),
        "off": (*STARTS, "handoff", "strength", "guidance_scale", "prompt", "negative_prompt", "aesthetic_score",
                "negative_aesthetic_score"),
    }
)  # fmt: skip


class Refiner(SpecPart):
    """How the refiner takes part in one image.

    ``ensemble``: it takes over from the base where one of ``start``, ``start_step`` and ``start_percent`` says.
    ``img2img``: it is given the base's finished latents, noised by ``strength`` (SDEdit, https://arxiv.org/abs/2108.01073).
    ``only``: it is given the init image in that way, and the base has no part. ``off``: the base alone.
    """

    mode: Mode = "ensemble"
    #: The handoff, as diffusers' ``denoising_start`` means it: a fraction of the noise schedule.
    start: Annotated[Float, Field(gt=0, lt=1)] | None = 0.8
    #: how many steps the base runs
    start_step: Annotated[Int, Field(ge=1, le=999)] | None = None
    #: which share of the steps the base runs, in percent
    start_percent: Annotated[Float, Field(gt=0, lt=100)] | None = None
    #: ``lossless``: one scheduler goes on over the seam; ``diffusers``: two calls of its pipelines, as documented
    handoff: Literal["lossless", "diffusers"] = "lossless"
    #: how much noise img2img puts in, and so which share of the steps runs
    strength: Annotated[Float, Field(gt=0, le=1)] | None = None
    #: None: the base's
    guidance_scale: Guidance | None = None
    prompt: Prompt | None = None
    negative_prompt: NegativePrompt | None = None
    aesthetic_score: Annotated[Float, Field(ge=0, le=10)] = 6.0
    negative_aesthetic_score: Annotated[Float, Field(ge=0, le=10)] = 2.5

    @model_validator(mode="before")
    @classmethod
    def _with_the_defaults_of_the_mode(cls, fields: Any) -> Any:
        """``start`` is the default of ``ensemble`` alone, and only where the handoff is not given in steps."""
        if not isinstance(fields, dict):
            return fields
        mode = fields.get("mode", "ensemble")
        if mode in ("img2img", "only"):
            strength = fields.get("strength")
            return {"start": None, **fields, "strength": _DEFAULT_STRENGTH if strength is None else strength}
        if mode == "off":
            return {name: value for name, value in fields.items() if value is not None}
        in_steps = any(fields.get(name) is not None for name in STARTS[1:])
        return {"start": None, **fields} if in_steps else fields

    @model_validator(mode="after")
    def _says_what_its_mode_knows(self) -> Self:
        for name in FOREIGN[self.mode]:
            value, default = getattr(self, name), type(self).model_fields[name].default
            if value is not None and (value != default or (name == "start" and self.mode != "off")):
                reason = f"says nothing with refiner.mode {self.mode}"
                raise RefusedFieldError(FieldProblem(f"refiner.{name}", value, reason, ("refiner.mode",)))
        if self.mode == "ensemble":
            self._check_start()
        return self

    def _check_start(self) -> None:
        given = [name for name in STARTS if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise PydanticCustomError("start", "needs one of start, start_step, start_percent, and has {found}",
                                      {"found": found})  # fmt: skip
        if self.handoff == "diffusers" and self.start is None:
            reason = f"knows start only, and not {given[0]}"
            raise RefusedFieldError(FieldProblem("refiner.handoff", "diffusers", reason, (f"refiner.{given[0]}",)))

    def num_base_steps(self, num_inference_steps: int) -> int | None:
        """The whole steps of the base; None where ``start`` says it, which only a scheduler's timesteps can answer."""
        if self.start_percent is not None:
            return math.floor(num_inference_steps * self.start_percent / 100 + 0.5)
        return self.start_step
