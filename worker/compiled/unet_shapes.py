"""The shapes in which a forward pass asks its UNets: each is compiled for itself. Pure."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from schemas.spec import JobSpec
from worker.passes.prompts import base_prompts, refiner_prompts


class UnetShape(NamedTuple):
    """``rows``: images, twice as many with guidance. ``chunks``: of 77 tokens each."""

    part: Literal["base", "refiner"]
    rows: int
    height: int
    width: int
    chunks: int


def unet_shapes(specs: Sequence[JobSpec], base_chunks: int, refiner_chunks: int) -> list[UnetShape]:
    """Of the specs of one forward pass: of the base, of the refiner, or of both. A side without a part has 0 chunks."""
    spec = specs[0]
    found = []
    if base_chunks:
        rows = len(specs) * (2 if base_prompts(spec).is_guided else 1)
        found.append(UnetShape("base", rows, spec.height, spec.width, base_chunks))
    if refiner_chunks:
        rows = len(specs) * (2 if refiner_prompts(spec).is_guided else 1)
        found.append(UnetShape("refiner", rows, spec.height, spec.width, refiner_chunks))
    return found
