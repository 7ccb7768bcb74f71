"""Which jobs of a pack may share a forward pass. Pure: knows specs and numbers, no torch."""

from collections import defaultdict
from collections.abc import Hashable, Sequence

from schemas.spec import JobSpec


def pass_key(spec: JobSpec, num_chunks: int) -> Hashable:
    """Jobs with one key may share a forward pass.

    The pipelines take one guidance scale and one aesthetic score for all images of a call, and prompts of different
    length would have to be padded, which changes pixels.
    """
    return spec.pack_key, spec.guidance_scale, spec.refiner, num_chunks


def split(specs: Sequence[JobSpec], chunk_counts: Sequence[int], limit: int) -> list[list[int]]:
    """Indices of the specs, as forward passes of at most ``limit`` images; order kept within a pass.

    ``chunk_counts`` has ``worker.embedding.num_chunks`` of each spec.
    """
    if limit < 1:
        raise ValueError(f"a forward pass holds at least 1 image, not {limit}")
    groups: defaultdict[Hashable, list[int]] = defaultdict(list)
    for index, (spec, num_chunks) in enumerate(zip(specs, chunk_counts, strict=True)):
        groups[pass_key(spec, num_chunks)].append(index)
    return [group[first : first + limit] for group in groups.values() for first in range(0, len(group), limit)]
