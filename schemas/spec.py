"""JobSpec: everything that decides the pixels of one image, and nothing else. Field names are diffusers' names."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from schemas.digest import canonical_json, sha256_hex
from schemas.errors import FieldProblem, SpecError
from schemas.schedulers import SchedulerOptions, named_scheduler, scheduler_options

MAX_PROMPT_CHARACTERS = 20_000
MAX_SEED = 2**64 - 1


def text_flaw(text: str) -> str | None:
    """Why no database or UTF-8 file could hold the text, or None: a NUL, or half of a surrogate pair."""
    if "\0" in text:
        return "contains a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"contains half a surrogate pair ({text[error.start]!a} at character {error.start + 1})"
    return None


def _storable(value: object) -> object:
    if isinstance(value, str) and (flaw := text_flaw(value)):
        raise PydanticCustomError("text", "{flaw}", {"flaw": flaw})
    return value


def _seed_in_range(seed: int) -> int:
    if not 0 <= seed <= MAX_SEED:  # pydantic's own message would round the bound to a double
        raise PydanticCustomError("seed", "is not between 0 and 18446744073709551615")
    return seed


def _divisible_by_8(side: int) -> int:
    if side % 8:
        lower = side - side % 8
        raise PydanticCustomError(
            "side",
            "is not divisible by 8; the nearest sides are {lower} and {upper}",
            {"lower": lower, "upper": lower + 8},
        )
    return side


def _whole_number(value: object) -> object:
    """Text from a TSV may stand for a whole number; a float or a bool may not (``40.0`` is refused, not rounded)."""
    if isinstance(value, str):
        text = value.strip()
        if text.removeprefix("-").isascii() and text.removeprefix("-").isdigit() and len(text) <= 30:
            return int(text)
        raise PydanticCustomError("int", "is not a whole number")
    return value


def _number(value: object) -> object:
    if isinstance(value, str):
        try:
            return float(value if value.isascii() and "_" not in value else "")  # float() reads "1_0" as 10
        except ValueError:
            raise PydanticCustomError("float", "is not a number") from None
    return value


def _scheduler(name: str) -> str:
    try:
        return named_scheduler(name)[0]
    except SpecError as error:
        raise PydanticCustomError("scheduler", "{reason}", {"reason": str(error)}) from None


def _refused(problem: FieldProblem) -> PydanticCustomError:
    """For a check of several fields together: pydantic would not know which of them to name."""
    return PydanticCustomError("together", "{reason}", vars(problem))


Int = Annotated[int, BeforeValidator(_whole_number)]
Float = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Side = Annotated[Int, Field(ge=64, le=4096), AfterValidator(_divisible_by_8)]
Seed = Annotated[Int, AfterValidator(_seed_in_range)]


class Refiner(BaseModel):
    """How the refiner takes part in one image. One of ``start``, ``start_step`` and ``start_percent`` says where."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    mode: Literal["ensemble", "off"] = "ensemble"
    #: The handoff, as diffusers' ``denoising_start`` means it: a fraction of the noise schedule.
    start: Annotated[Float, Field(gt=0, lt=1)] | None = 0.8
    #: how many steps the base runs
    start_step: Annotated[Int, Field(ge=1, le=999)] | None = None
    #: which share of the steps the base runs, in percent
    start_percent: Annotated[Float, Field(gt=0, lt=100)] | None = None
    #: ``lossless``: one scheduler goes on over the seam; ``diffusers``: two calls of its pipelines, as documented
    handoff: Literal["lossless", "diffusers"] = "lossless"
    aesthetic_score: Annotated[Float, Field(ge=0, le=10)] = 6.0
    negative_aesthetic_score: Annotated[Float, Field(ge=0, le=10)] = 2.5

    @model_validator(mode="before")
    @classmethod
    def _without_the_default_start(cls, fields: Any) -> Any:
        """``start`` has a default; where the handoff is given in steps it must not stand beside it."""
        in_steps = isinstance(fields, dict) and any(fields.get(name) is not None for name in _STARTS[1:])
        return {"start": None, **fields} if in_steps else fields

    @model_validator(mode="after")
    def _starts_once(self) -> Self:
        given = [name for name in _STARTS if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise PydanticCustomError("start", "needs one of start, start_step, start_percent, and has {found}",
                                      {"found": found})  # fmt: skip
        if self.handoff == "diffusers" and self.start is None:
            problem = FieldProblem("refiner.handoff", "diffusers", f"knows start only, and not {given[0]}")
            raise _refused(problem)
        return self

    def num_base_steps(self, num_inference_steps: int) -> int | None:
        """The whole steps of the base; None where ``start`` says it, which only a scheduler's timesteps can answer."""
        if self.start_percent is not None:
            return math.floor(num_inference_steps * self.start_percent / 100 + 0.5)
        return self.start_step


_STARTS = ("start", "start_step", "start_percent")


class JobSpec(BaseModel):
    """One image. Frozen; equal specs have equal digests; unknown fields are refused.

    ``negative_prompt`` None lets diffusers use zeros for the base (``force_zeros_for_empty_prompt``);
    the empty string is encoded like any other text. They are two different images.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    prompt: Annotated[str, Field(min_length=1, max_length=MAX_PROMPT_CHARACTERS), BeforeValidator(_storable)]
    negative_prompt: Annotated[str, Field(max_length=MAX_PROMPT_CHARACTERS), BeforeValidator(_storable)] | None = None
    #: ``plain``: parentheses and plus signs are text. ``compel``: they are weights.
    prompt_syntax: Literal["plain", "compel"] = "plain"
    width: Side = 1024
    height: Side = 1024
    num_inference_steps: Annotated[Int, Field(ge=1, le=1000)] = 40
    guidance_scale: Annotated[Float, Field(ge=0, le=100)] = 5.0
    scheduler: Annotated[str, AfterValidator(_scheduler)] = "EulerDiscreteScheduler"
    #: (name, value) pairs that ``schemas.schedulers`` knows for this scheduler; an object in JSON
    scheduler_options: Annotated[SchedulerOptions, PlainSerializer(dict)] = ()
    refiner: Refiner = Refiner()
    seed: Seed

    @model_validator(mode="before")
    @classmethod
    def _with_the_options_of_the_name(cls, fields: Any) -> Any:
        """``"scheduler": "DPM++ 2M Karras"`` is a class name and an option."""
        if not isinstance(fields, dict) or not isinstance(fields.get("scheduler"), str):
            return fields
        try:
            class_name, implied = named_scheduler(fields["scheduler"])
        except SpecError:
            return fields  # the field's own check says it
        given = fields.get("scheduler_options")
        if not implied or not isinstance(given, Mapping | None):
            return fields
        for option, value in implied.items():
            if given and str(given.get(option, value)).lower() != str(value).lower():
                reason = f"contradicts the name {fields['scheduler']!r}"
                raise _refused(FieldProblem(f"scheduler_options.{option}", given[option], reason))
        return {**fields, "scheduler": class_name, "scheduler_options": {**(given or {}), **implied}}

    @field_validator("scheduler_options", mode="before")
    @classmethod
    def _options_of_the_scheduler(cls, given: Any, info: ValidationInfo) -> SchedulerOptions:
        if not isinstance(given, Mapping):
            raise PydanticCustomError("options", "should be an object of options and their values")
        if "scheduler" not in info.data:
            return ()  # it is refused for its scheduler
        try:
            return scheduler_options(info.data["scheduler"], given)
        except SpecError as error:
            raise _refused(error.problems[0]) from None

    @field_validator("refiner", mode="after")
    @classmethod
    def _both_sides_have_steps(cls, refiner: Refiner, info: ValidationInfo) -> Refiner:
        num_steps = info.data.get("num_inference_steps")
        if refiner.mode == "off" or num_steps is None:
            return refiner
        num_base_steps = refiner.num_base_steps(num_steps)
        if num_base_steps is None or 0 < num_base_steps < num_steps:
            return refiner
        name = "start_step" if refiner.start_step is not None else "start_percent"
        reason = f"leaves {num_base_steps} of {num_steps} steps to the base; base and refiner need one each"
        raise _refused(FieldProblem(f"refiner.{name}", getattr(refiner, name), reason))

    @field_serializer("seed", when_used="json")
    def _seed_as_text(self, seed: int) -> str:
        return str(seed)  # a JSON reader that uses doubles would round 2**64 - 1

    @classmethod
    def parse(cls, fields: dict[str, Any]) -> Self:
        """The spec of these fields.

        Raises:
            SpecError: with ``field: value: reason`` of every field that is wrong, and ``problems`` as data.
        """
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            problems = [_problem(item) for item in error.errors()]
            raise SpecError("; ".join(map(_sentence, problems)), problems) from None

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The spec that ``canonical`` wrote."""
        return cls.model_validate_json(text)

    @property
    def canonical(self) -> str:
        """Canonical JSON without the fields at their default: a field added later leaves old digests as they were."""
        return canonical_json(self.model_dump(mode="json", exclude_defaults=True))

    @property
    def content_without_seed(self) -> dict[str, Any]:
        """What ``canonical`` writes, less the seed: what seeds are derived from, and repeats counted by."""
        return self.model_dump(mode="json", exclude_defaults=True, exclude={"seed"})

    @property
    def digest(self) -> str:
        """sha256 of the canonical JSON, 64 hexadecimal digits."""
        return sha256_hex(self.canonical)

    @property
    def pack_key(self) -> str:
        """Jobs with one pack key may share a pack: size, steps, scheduler and its options. At most 120 characters."""
        key = f"{self.width}x{self.height}/{self.num_inference_steps}/{self.scheduler}"
        if not self.scheduler_options:
            return key
        return f"{key}/{sha256_hex(canonical_json(dict(self.scheduler_options)))[:16]}"


def _problem(item: Any) -> FieldProblem:
    field = ".".join(str(part) for part in item["loc"])
    if item["type"] == "missing":
        return FieldProblem(field, None, "is missing")
    if item["type"] == "extra_forbidden":
        return FieldProblem(field, None, "is not a field of a spec")
    if item["type"] == "together":
        return FieldProblem(**item["ctx"])
    message = item["msg"].removeprefix("Input ").removeprefix("String ")
    return FieldProblem(field, item["input"], message[0].lower() + message[1:])


def _sentence(problem: FieldProblem) -> str:
    if problem.value is None:
        return f"{problem.field}: {problem.reason}"
    shown = repr(problem.value)
    if len(shown) > 60:
        shown = f"{shown[:57]}... ({len(str(problem.value))} characters)"
    return f"{problem.field}: {shown}: {problem.reason}"
