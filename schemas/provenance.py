"""Provenance: the record of how an image was made, complete enough to make it again.

What is the same for a thousand images (``Environment``) stands once, in the ``environments`` table. What belongs to one
image (``Provenance``) stands in its result row. ``image_record`` joins both for the file: only what is reproducible.
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.device_options import CompileMode
from schemas.digest import canonical_json, sha256_hex

if TYPE_CHECKING:  # the ledger imports this module, and needs no spec
    from schemas.spec import JobSpec

RECORD_VERSION = 1

#: How the refiner came by its latents: over a seam, from the finished ones of the base, or not from the base at all.
Handoff = Literal["lossless", "diffusers", "img2img", "none"]

#: Records come from files as well, which anybody may have written.
Count = Annotated[int, Field(ge=0)]


class Environment(BaseModel):
    """Weights, libraries and device that a worker renders with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pair: str
    #: sha256 over every weight file and the options that change pixels
    pair_fingerprint: str
    base: str
    base_revision: str | None
    #: first 10 hexadecimal digits of the sha256 of the base UNet's weights, as A1111's "Model hash"
    base_hash: str
    refiner: str | None
    refiner_revision: str | None
    refiner_hash: str | None
    #: in place of the base's own VAE; None: that one
    vae: str | None = None
    vae_revision: str | None = None
    vae_hash: str | None = None
    vae_slicing: bool = True
    vae_tiling: bool = False
    #: token → first 10 hexadecimal digits of its file's sha256, as A1111's "TI hashes"
    textual_inversions: dict[str, str] = {}
    license: str
    #: library → version: nightshift, torch, diffusers, transformers, ...
    versions: dict[str, str]
    #: "cpu" or the GPU's name
    device: str
    dtype: str
    #: the UNets' attention processors, and the kernel that they get
    attention_backend: str
    #: what the pair asks for; an image's ``Provenance`` has what it was rendered with
    compile_mode: str = "off"
    #: the pair's device options that are not as by default
    options: dict[str, bool | str] = {}

    @property
    def digest(self) -> str:
        return sha256_hex(canonical_json(self.model_dump(mode="json")))


class Provenance(BaseModel):
    """How one image came to be, beside its spec and its environment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    handoff: Handoff
    #: at the most what the setting of this name allows
    forward_pass_size: Annotated[int, Field(ge=1, le=1024)]
    base_steps: Count
    refiner_steps: Count
    #: The noise level that the refiner began at; None without one.
    handoff_sigma: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None
    #: how many 77-token chunks the longest text of each side has; 0 where it had no part
    prompt_chunks: Count
    refiner_prompt_chunks: Count
    #: how many of the 48 watermark bits the stock decoder read back; None where none was put in
    watermark_bits: Annotated[int, Field(ge=0, le=48)] | None
    #: the VAE's own dtype gave a black or broken picture; this one was decoded in float32
    vae_float32_retry: bool = False
    #: how the UNets were compiled when it was rendered: a shape that is not compiled yet is rendered with "off"
    compile_mode: CompileMode = "off"


def handoff_kind(spec: "JobSpec") -> Handoff:
    """What ``Provenance.handoff`` says of a spec's image."""
    match spec.refiner.mode:
        case "ensemble":
            return spec.refiner.handoff
        case "img2img":
            return "img2img"
        case _:
            return "none"


def image_record(
    spec: "JobSpec", provenance: Provenance, environment: Environment, meta: dict[str, str]
) -> dict[str, Any]:
    """The JSON record that the image file carries: reproducible, so no worker, no pack, no time."""
    return {
        "nightshift": RECORD_VERSION,
        "spec": spec.model_dump(mode="json"),
        "provenance": provenance.model_dump(mode="json"),
        "environment": environment.model_dump(mode="json"),
        "meta": meta,
    }
