"""ModelPair: one SDXL base and its refiner; what a device pins, and what a queue is named after."""

import re
from types import MappingProxyType
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Dtype = Literal["float32", "float16", "bfloat16"]

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


def _plain_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("a pair's name has only a-z, 0-9, dot, dash and underscore, at most 63 of them")
    return name


class ModelSource(BaseModel):
    """Where one model's weights are: a hub id with its revision, a local folder, a synthetic size. Safetensors only."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: hub id ("stabilityai/stable-diffusion-xl-base-1.0"), absolute folder, or "synthetic:tiny" / "synthetic:full"
    source: str = Field(min_length=1)
    revision: str | None = None
    variant: str | None = None


class ModelPair(BaseModel):
    """A base, its refiner, and the options that go with them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, AfterValidator(_plain_name)]
    base: ModelSource
    refiner: ModelSource | None = None
    #: None: float16 on a GPU, float32 on a CPU
    dtype: Dtype | None = None
    watermark: bool = True
    #: The licence of the weights, which every image's provenance repeats.
    license: str = "unknown"


def queue_name(pair: str) -> str:
    """The Celery queue of a pair's packs."""
    return f"nightshift.{pair}"


def _synthetic(size: str) -> ModelPair:
    return ModelPair(
        name=size,
        base=ModelSource(source=f"synthetic:{size}"),
        refiner=ModelSource(source=f"synthetic:{size}"),
        license="none (random weights)",
    )


BUILT_IN_PAIRS: Final = MappingProxyType(
    {
        "tiny": _synthetic("tiny"),
        "full": _synthetic("full"),
        "sdxl": ModelPair(
            name="sdxl",
            base=ModelSource(source="stabilityai/stable-diffusion-xl-base-1.0", variant="fp16"),
            refiner=ModelSource(source="stabilityai/stable-diffusion-xl-refiner-1.0", variant="fp16"),
            license="CreativeML Open RAIL++-M",
        ),
    }
)
