"""ModelPair: one SDXL base and its refiner; what a device pins, and what a queue is named after."""

import re
from itertools import permutations
from pathlib import PurePath
from types import MappingProxyType
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from schemas.device_options import DeviceOptions
from schemas.digest import canonical_json, sha256_hex

Dtype = Literal["float32", "float16", "bfloat16"]
Offload = Literal["none", "model", "sequential", "auto"]

SYNTHETIC: Final = "synthetic:"
SAFETENSORS: Final = ".safetensors"

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_HUB_ID: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_.-]+){0,2}")
_PATH: Final = re.compile(r"[^\x00-\x1f\x7f]+")
_PICKLES: Final = (".ckpt", ".pt", ".pth", ".bin", ".pkl")


def _plain_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("a pair's name has only a-z, 0-9, dot, dash and underscore, at most 63 of them")
    return name


def _no_pickle(source: str) -> str:
    if source.lower().endswith(_PICKLES):
        raise ValueError("a pickle can run code, so only .safetensors files are read: convert it")
    return source


def _hub_id_or_path(source: str) -> str:
    """The hub's client would take a URL apart, and a path upwards is one that nobody meant to offer."""
    plain = source.removeprefix(SYNTHETIC)
    if ".." in PurePath(plain).parts or not (_PATH if PurePath(plain).is_absolute() else _HUB_ID).fullmatch(plain):
        raise ValueError("should be a hub id (owner/name), or an absolute path without ..")
    return source


Source = Annotated[str, Field(min_length=1), AfterValidator(_hub_id_or_path)]
WeightSource = Annotated[Source, AfterValidator(_no_pickle)]


class ModelSource(BaseModel):
    """Where one model's weights are. Safetensors only."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: hub id ("stabilityai/stable-diffusion-xl-base-1.0"), absolute folder, absolute .safetensors file in SDXL's
    #: original layout, or "synthetic:tiny" / "synthetic:full"
    source: WeightSource
    #: the hub's branch, tag or commit: of the source; of ``config`` where the source is a file
    revision: str | None = None
    variant: str | None = None
    #: of a file: the hub id or absolute folder that has its configs and tokenizers; None: those of SDXL
    config: Source | None = None

    @property
    def is_file(self) -> bool:
        return self.source.endswith(SAFETENSORS)

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        if self.is_file and not PurePath(self.source).is_absolute():
            raise ValueError("a file is named by its absolute path")
        if self.is_file and self.variant is not None:
            raise ValueError("a file has no variants: name the file of the variant you want")
        if self.config is not None and not self.is_file:
            raise ValueError("config goes with a .safetensors file; folders and hub ids have their own")
        of_hub = self.config if self.is_file else self.source
        if self.revision is not None and (of_hub is None or not _is_hub_id(of_hub)):
            raise ValueError("revision goes with a hub id; folders and files have none")
        return self


def _is_hub_id(source: str) -> bool:
    return not PurePath(source).is_absolute() and not source.startswith(SYNTHETIC)


class TextualInversion(BaseModel):
    """One learned token: a file with its vectors for both text encoders (``clip_l`` and ``clip_g``)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: absolute .safetensors file, or hub id
    source: WeightSource
    #: the word that stands for it in prompts
    token: Annotated[str, Field(pattern=r"^\S+$", max_length=100)]
    #: of a hub id: the file in it
    weight_name: (
        Annotated[str, Field(pattern=r"^(?:[A-Za-z0-9_][A-Za-z0-9_. -]*/)*[A-Za-z0-9_][A-Za-z0-9_. -]*\.safetensors$")]
        | None
    ) = None
    revision: str | None = None

    @property
    def is_file(self) -> bool:
        return PurePath(self.source).is_absolute()

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        if self.is_file and not self.source.endswith(SAFETENSORS):
            raise ValueError("a local textual inversion is a .safetensors file")
        if not self.is_file and self.weight_name is None:
            raise ValueError("weight_name is missing: the .safetensors file in that hub id; or give an absolute path")
        if self.is_file and (self.weight_name is not None or self.revision is not None):
            raise ValueError("weight_name and revision go with a hub id; a file has none")
        return self


class ModelPair(BaseModel):
    """A base, its refiner, and the options that go with them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, AfterValidator(_plain_name)]
    base: ModelSource
    refiner: ModelSource | None = None
    #: None: float16 on a GPU, float32 on a CPU
    dtype: Dtype | None = None
    #: in place of the base's VAE, for base and refiner: hub id, absolute folder or .safetensors file
    vae: ModelSource | None = None
    #: decodes one image of a forward pass at a time: eight of 1024 x 1024 at once would take 24 GB in float32, and
    #: be rounded otherwise
    vae_slicing: bool = True
    #: decodes large images in tiles that are blended: less memory, slightly other pixels
    vae_tiling: bool = False
    #: "model": one network on the device at a time; "sequential": one layer; "auto": what free memory asks for
    offload: Offload = "none"
    #: how the device computes: exactly as diffusers does unless it says otherwise
    options: DeviceOptions = DeviceOptions()
    textual_inversions: tuple[TextualInversion, ...] = ()
    watermark: bool = True
    #: The licence of the weights, which every image's provenance repeats.
    license: str = "unknown"

    @property
    def definition(self) -> str:
        """sha256 of what is said of the pair: another one may be of other pixels. Options that a later version adds
        change none that does not use them."""
        return sha256_hex(canonical_json(self.model_dump(mode="json", exclude_defaults=True)))

    @model_validator(mode="after")
    def _stays_on_the_device(self) -> Self:
        option = self.options.need_whole_networks()
        if option is not None and self.offload != "none":
            raise ValueError(
                f'options.{option} works with networks that stay on the device: take it away, or say offload = "none"'
            )
        return self

    @model_validator(mode="after")
    def _tokens_are_told_apart(self) -> Self:
        """Diffusers replaces a token of several vectors wherever its text stands, in other tokens too."""
        tokens = [inversion.token for inversion in self.textual_inversions]
        for one, other in permutations(tokens, 2):
            if one in other:
                raise ValueError(
                    f"the token {one!r} is in the token {other!r} of another inversion; rename one of them"
                )
        return self


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
