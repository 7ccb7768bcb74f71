"""Which jobs of a pack may share a forward pass. Pure: knows specs and numbers, no torch."""

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence

from schemas.spec import JobSpec


def pass_key(spec: JobSpec, chunks: Hashable) -> Hashable:
    """Jobs with one key may share a forward pass: one noise schedule, one guidance, prompts of equally many chunks.

    Prompts of different length would have to be padded, which changes pixels. What differs from image to image
    otherwise (prompts, sizes, aesthetic scores, seeds) is told for each; but not by diffusers' pipelines.
    """
    refiner = spec.refiner.model_copy(update=_OF_ONE_IMAGE)
    told = (spec.guidance_scale, spec.guidance_rescale, spec.strength, spec.init_image is None)
    return spec.pack_key, chunks, told, refiner, _told_to_all(spec)


_OF_ONE_IMAGE = {"prompt": None, "negative_prompt": None, "aesthetic_score": None, "negative_aesthetic_score": None}


def _told_to_all(spec: JobSpec) -> Hashable:
    """What the pipelines take once for all images of a call."""
    if spec.refiner.handoff == "lossless":
        return None
    scores = (spec.refiner.aesthetic_score, spec.refiner.negative_aesthetic_score)
    return scores, spec.original_size, spec.target_size, spec.crops_coords_top_left


def split(specs: Sequence[JobSpec], chunk_counts: Sequence[Hashable], limit: int) -> list[list[int]]:
    """Indices of the specs, as forward passes of at most ``limit`` images; order kept within a pass.

    Every pass has 1, 2, 4, 8, ... images. With 3 or 5 a CPU's threads would share the rows of one image, and round its
    sums otherwise than those of its neighbours: an image would depend on its place.
    ``chunk_counts`` has ``worker.embedding.num_chunks`` of each spec.
    """
    if limit < 1:
        raise ValueError(f"a forward pass holds at least 1 image, not {limit}")
    groups: defaultdict[Hashable, list[int]] = defaultdict(list)
    for index, (spec, chunks) in enumerate(zip(specs, chunk_counts, strict=True)):
        groups[pass_key(spec, chunks)].append(index)
    return [one for group in groups.values() for one in _in_powers_of_two(group, limit)]


def _in_powers_of_two(group: list[int], limit: int) -> Iterator[list[int]]:
    while group:
        size = largest_power_of_two(min(len(group), limit))
        yield group[:size]
        group = group[size:]


def largest_power_of_two(most: int) -> int:
    """The largest one that is not above ``most``, from 1."""
    return 1 << (most.bit_length() - 1)
