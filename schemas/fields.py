"""Field types of a spec. A manifest's cells are text, so text may stand for a number; nothing is rounded or cut."""

from typing import Annotated, Any, TypeGuard

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from schemas.errors import FieldProblem

MAX_PROMPT_CHARACTERS = 20_000
MAX_SEED = 2**64 - 1


class SpecPart(BaseModel):
    """A spec, or an object in it: frozen, and unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def text_flaw(text: str) -> str | None:
    """Why no database or UTF-8 file could hold the text, or None: a NUL, or half of a surrogate pair."""
    if "\0" in text:
        return "contains a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"contains half a surrogate pair ({text[error.start]!a} at character {error.start + 1})"
    return None


class RefusedFieldError(ValueError):
    """A check of several fields together says which of them is wrong: pydantic would not know which to name.

    It has no text, because pydantic would ask for it, and a value may be anything: half a surrogate pair has no UTF-8.
    """

    def __init__(self, problem: FieldProblem) -> None:
        super().__init__()
        self.problem = problem


def _storable(value: object) -> object:
    if isinstance(value, str) and (flaw := text_flaw(value)):
        raise PydanticCustomError("text", "{flaw}", {"flaw": flaw})
    return value


def _seed_in_range(seed: int) -> int:
    if not 0 <= seed <= MAX_SEED:  # pydantic's own message would round the bound to a double
        raise PydanticCustomError("seed", "is not between 0 and 18446744073709551615")
    return seed


def accepted_seed(value: object) -> int | None:
    """What ``Seed`` makes of the value; None where it is refused."""
    if type(value) is int:
        return value if 0 <= value <= MAX_SEED else None
    try:
        seed = _whole_number(value)
        return _seed_in_range(seed) if type(seed) is int else None
    except PydanticCustomError:
        return None


def is_prompt(value: object) -> TypeGuard[str]:
    """Whether ``Prompt`` takes the value."""
    return type(value) is str and 0 < len(value) <= MAX_PROMPT_CHARACTERS and text_flaw(value) is None


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


def _without_sign_of_zero(number: float) -> float:
    return number + 0.0  # -0.0 would be another digest of the same image


def _two_numbers(value: Any) -> Any:
    """``1024,768`` or a list of two. Not ``1024x768``: that is width x height everywhere else, and these are not."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or len(parts) != 2:
        raise PydanticCustomError("two", "should be two whole numbers with a comma between them: {example}",
                                  {"example": "first the vertical one, then the horizontal one"})  # fmt: skip
    return tuple(parts)


Int = Annotated[int, BeforeValidator(_whole_number)]
Float = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False), AfterValidator(_without_sign_of_zero)]
Side = Annotated[Int, Field(ge=64, le=4096), AfterValidator(_divisible_by_8)]
Seed = Annotated[Int, AfterValidator(_seed_in_range)]
Guidance = Annotated[Float, Field(ge=0, le=100)]
Prompt = Annotated[str, Field(min_length=1, max_length=MAX_PROMPT_CHARACTERS), BeforeValidator(_storable)]
NegativePrompt = Annotated[str, Field(max_length=MAX_PROMPT_CHARACTERS), BeforeValidator(_storable)]
#: of a file's bytes, 64 hexadecimal digits
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

_Length = Annotated[Int, Field(ge=1, le=16_384)]
_Distance = Annotated[Int, Field(ge=0, le=16_384)]
#: (height, width) in pixels
Size = Annotated[tuple[_Length, _Length], BeforeValidator(_two_numbers)]
#: (top, left) in pixels
Crop = Annotated[tuple[_Distance, _Distance], BeforeValidator(_two_numbers)]
