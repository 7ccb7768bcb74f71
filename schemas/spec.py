"""JobSpec: everything that decides the pixels of one image, and nothing else. Field names are diffusers' names."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    ValidationError,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from schemas.buckets import with_sides
from schemas.combinations import combination_problem
from schemas.digest import canonical_json, sha256_hex
from schemas.errors import FieldProblem, SpecError
from schemas.fields import (
    Crop,
    Float,
    Guidance,
    Int,
    NegativePrompt,
    Prompt,
    RefusedFieldError,
    Seed,
    Sha256,
    Side,
    Size,
    SpecPart,
)
from schemas.loras import MAX_LORAS, Loras
from schemas.output import Output
from schemas.pack_key import pack_key
from schemas.printable import printable_start, shown
from schemas.refiner import Refiner
from schemas.schedulers import SchedulerOptions, named_scheduler, scheduler_options, stands_for

#: More than a spec has fields: only what lists more than it may can have more.
MAX_PROBLEMS: Final = 50


def _scheduler(name: str) -> str:
    try:
        return named_scheduler(name)[0]
    except SpecError as error:
        raise PydanticCustomError("scheduler", "{reason}", {"reason": str(error)}) from None


def _as_tuple(items: Any) -> Any:
    if not isinstance(items, list):
        return items
    if len(items) > MAX_LORAS:  # before each of them is looked at
        raise PydanticCustomError(
            "loras", "should have at most {most} items, not {num}", {"most": MAX_LORAS, "num": len(items)}
        )
    return tuple(items)


class JobSpec(SpecPart):
    """One image. Frozen; equal specs have equal digests; unknown fields are refused.

    ``negative_prompt`` None lets diffusers use zeros for the base (``force_zeros_for_empty_prompt``);
    the empty string is encoded like any other text. They are two different images.
    """

    prompt: Prompt
    #: what ``text_encoder_2`` reads instead of ``prompt``; in the base alone, as in diffusers
    prompt_2: Prompt | None = None
    negative_prompt: NegativePrompt | None = None
    negative_prompt_2: Prompt | None = None
    #: ``plain``: parentheses and plus signs are text. ``compel``: they are weights.
    prompt_syntax: Literal["plain", "compel"] = "plain"
    width: Side = 1024
    height: Side = 1024
    #: of the 1000 that SDXL was trained with; at 1000 some schedulers' timesteps fall outside
    num_inference_steps: Annotated[Int, Field(ge=1, le=999)] = 40
    guidance_scale: Guidance = 5.0
    #: https://arxiv.org/abs/2305.08891, section 3.4
    guidance_rescale: Annotated[Float, Field(ge=0, le=1)] = 0.0
    #: how many layers before the penultimate one the positive prompt is taken from, in the base
    clip_skip: Annotated[Int, Field(ge=1, le=11)] | None = None
    scheduler: Annotated[str, AfterValidator(_scheduler)] = "EulerDiscreteScheduler"
    #: (name, value) pairs that ``schemas.schedulers`` knows for this scheduler; an object in JSON
    scheduler_options: Annotated[SchedulerOptions, PlainSerializer(dict)] = ()
    #: what the UNets are told of the picture; None: its own size, no crop
    original_size: Size | None = None
    target_size: Size | None = None
    crops_coords_top_left: Crop | None = None
    negative_original_size: Size | None = None
    negative_target_size: Size | None = None
    negative_crops_coords_top_left: Crop | None = None
    #: the picture to start from, of ``width`` x ``height``; noised by ``strength``
    init_image: Sha256 | None = None
    strength: Annotated[Float, Field(gt=0, le=1)] | None = None
    loras: Annotated[Loras, BeforeValidator(_as_tuple)] = ()
    refiner: Refiner = Refiner()
    output: Output = Output()
    seed: Seed

    @model_validator(mode="before")
    @classmethod
    def _with_the_sides_of_the_ratio(cls, fields: Any) -> Any:
        """``"aspect_ratio": "16:9"`` is a width and a height, and the spec keeps those alone."""
        try:
            return with_sides(fields) if isinstance(fields, dict) else fields
        except SpecError as error:
            raise RefusedFieldError(error.problems[0]) from None

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
            if given and option in given and not stands_for(given[option], value):
                reason = f"contradicts the name {fields['scheduler']!r}"
                raise RefusedFieldError(
                    FieldProblem(f"scheduler_options.{option}", given[option], reason, ("scheduler",))
                )
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
            raise RefusedFieldError(error.problems[0]) from None

    @model_validator(mode="after")
    def _is_of_one_piece(self) -> Self:
        if problem := combination_problem(self):
            raise RefusedFieldError(problem)
        return self

    @field_serializer("seed", when_used="json")
    def _seed_as_text(self, seed: int) -> str:
        return str(seed)  # a JSON reader that uses doubles would round 2**64 - 1

    @classmethod
    def parse(cls, fields: dict[str, Any]) -> Self:
        """The spec of these fields.

        Raises:
            SpecError: with ``field: value: reason`` of every field that is wrong, and ``problems`` as data. It names
                the first ``MAX_PROBLEMS``.
        """
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            errors = error.errors(include_url=False)
            problems = [_problem(item) for item in errors[:MAX_PROBLEMS]]
            more = [f"and {len(errors) - MAX_PROBLEMS} more"] if len(errors) > MAX_PROBLEMS else []
            raise SpecError("; ".join([*map(_sentence, problems), *more]), problems) from None

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
        """Jobs with one pack key may share a forward pass (``schemas.pack_key``). At most 120 characters."""
        return pack_key(self)


def _problem(item: Any) -> FieldProblem:
    field = ".".join(str(part) for part in item["loc"])
    if item["type"] == "missing":
        return FieldProblem(field, None, "is missing")
    if item["type"] == "extra_forbidden":
        return FieldProblem(field, None, "is not a field of a spec")
    if isinstance(refusal := item.get("ctx", {}).get("error"), RefusedFieldError):
        return refusal.problem
    message = item["msg"].removeprefix("Input ").removeprefix("String ")
    return FieldProblem(field, item["input"], message[0].lower() + message[1:])


def _sentence(problem: FieldProblem) -> str:
    field = printable_start(problem.field, 60) or "the spec"
    if problem.value is None:
        return f"{field}: {problem.reason}"
    return f"{field}: {shown(problem.value)}: {problem.reason}"
