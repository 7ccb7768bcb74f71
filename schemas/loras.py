"""LoRAs of a job: low-rank changes of the base, by name, content and weight."""

from typing import Annotated, Final

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from schemas.fields import Float, Sha256, SpecPart

#: More would not fit beside a base; A1111 users stack three or four.
MAX_LORAS: Final = 8


def _not_zero(weight: float) -> float:
    if weight == 0:
        raise PydanticCustomError("weight", "changes nothing; leave the LoRA out")
    return weight


class Lora(SpecPart):
    """One LoRA. ``name`` is what people call it; ``sha256`` is what decides the pixels."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_. -]{0,99}$")]
    #: of its safetensors file
    sha256: Sha256
    weight: Annotated[Float, Field(ge=-10, le=10), AfterValidator(_not_zero)] = 1.0


def _each_once(loras: tuple[Lora, ...]) -> tuple[Lora, ...]:
    names = [lora.sha256 for lora in loras]
    twice = next((lora.name for lora in loras if names.count(lora.sha256) > 1), None)
    if twice is not None:
        raise PydanticCustomError("loras", "name {name} twice; add its weights up", {"name": twice})
    return loras


Loras = Annotated[tuple[Lora, ...], Field(max_length=MAX_LORAS), AfterValidator(_each_once)]
