"""How much memory a forward pass takes by its number of images, and how many of them fit. Pure: knows numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from worker.passes.forward_passes import largest_power_of_two


class MemoryUse(NamedTuple):
    """What one forward pass took at the most. Decoding may take one image at a time, and more than denoising takes for
    several: a line through both together would see no growth where there is some."""

    denoising_bytes: int
    decoding_bytes: int


@dataclass(frozen=True)
class PassMemory:
    """``uses``: number of images → what a pass of so many took when it was tried."""

    uses: Mapping[int, MemoryUse] = field(default_factory=dict)

    def with_use(self, num_images: int, use: MemoryUse) -> Self:
        return type(self)({**self.uses, num_images: use})

    def bytes_of(self, num_images: int) -> int:
        """As it was measured; else, by the lines through one image and two, as it will be."""
        if num_images in self.uses:
            return max(self.uses[num_images])
        one, two = self.uses[1], self.uses[2]
        return max(at_one + (num_images - 1) * (at_two - at_one) for at_one, at_two in zip(one, two, strict=True))

    def limit(self, most: int, budget_bytes: int) -> int:
        """The largest power of two up to ``most`` that fits. 1 where nothing fits, for there is no smaller pass, or
        where two were never tried."""
        num_images = largest_power_of_two(most) if 2 in self.uses else 1
        while num_images > 1 and self.bytes_of(num_images) > budget_bytes:
            num_images //= 2
        return num_images

    def untried(self, most: int, budget_bytes: int) -> int | None:
        """How many images a pass should be tried with next; None: the limit is known, and was tried."""
        if 1 not in self.uses:
            return 1
        if most == 1 or self.bytes_of(1) > budget_bytes:
            return None
        if 2 not in self.uses:
            return 2
        limit = self.limit(most, budget_bytes)
        return None if limit in self.uses else limit

    def to_json(self) -> dict[str, list[int]]:
        return {str(num_images): list(use) for num_images, use in self.uses.items()}

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """Raises ValueError for what ``to_json`` has not written."""
        try:
            return cls({int(num_images): MemoryUse(*map(int, use)) for num_images, use in content.items()})
        except (AttributeError, TypeError) as error:
            raise ValueError(f"no record of a pass's memory: {error}") from None
