"""Which jobs of a pack may share a forward pass. Pure: knows specs and numbers, no torch."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence

from schemas.spec import JobSpec


def pass_key(spec: JobSpec, chunks: Hashable) -> Hashable:
    """Jobs with one key may share a forward pass: one noise schedule, one guidance, prompts of equally many chunks.

    Prompts of different length would have to be padded, which changes pixels. All else that separates passes is in the
    pack key, so that jobs which were packed together are rendered together. The key is of the spec, and not what the
    ledger has, which an earlier version may have written.
    """
    return spec.pack_key, chunks


def split(
    specs: Sequence[JobSpec], chunk_counts: Sequence[Hashable], limit: int, *, pads: bool = False
) -> list[list[int]]:
    """Indices of the specs, as forward passes of at most ``limit`` images; order kept within a pass.

    Every pass has 1, 2, 4, 8, ... images. With 3 or 5 a CPU's threads would share the rows of one image, and round its
    sums otherwise than those of its neighbours: an image would depend on its place.
    ``chunk_counts`` has ``worker.passes.embedding.num_chunks`` of each spec. ``pads``: passes will be filled up to
    their ``padded_size``, so that there are few sizes to compile for.
    """
    if limit < 1:
        raise ValueError(f"a forward pass holds at least 1 image, not {limit}")
    groups: defaultdict[Hashable, list[int]] = defaultdict(list)
    for index, (spec, chunks) in enumerate(zip(specs, chunk_counts, strict=True)):
        groups[pass_key(spec, chunks)].append(index)
    size_of = (lambda most: _fillable(most, limit)) if pads else largest_power_of_two
    return [one for group in groups.values() for one in _in_sizes(group, limit, size_of)]


def padded_size(num_images: int, limit: int) -> int:
    """The compiled size for so many images, which ``split`` has put together for it."""
    return next(size for size in compiled_sizes(limit) if size >= num_images)


def compiled_sizes(limit: int) -> list[int]:
    """1, half of the most, the most: passes of three sizes are all that is compiled, for each size of images."""
    most = largest_power_of_two(limit)
    return sorted({1, max(most // 2, 1), most})


def _fillable(num_images: int, limit: int) -> int:
    """How many of so many images go into the next pass: as many as fill the largest size to three quarters, for the
    rest of it is thrown away."""
    return max(min(num_images, size) for size in compiled_sizes(limit) if min(num_images, size) * 4 >= size * 3)


def _in_sizes(group: list[int], limit: int, size_of: Callable[[int], int]) -> Iterator[list[int]]:
    while group:
        size = size_of(min(len(group), limit))
        yield group[:size]
        group = group[size:]


def largest_power_of_two(most: int) -> int:
    """The largest one that is not above ``most``, from 1."""
    return 1 << (most.bit_length() - 1)
