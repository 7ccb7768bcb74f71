"""How long the device may work before a step of a forward pass ends. Past that it counts as hung. Pure."""

from typing import Final, NamedTuple

#: Before anything was measured: kernels are compiled, and a slow device takes minutes for a step of a large pass.
FIRST_SECONDS: Final = 1800.0
#: Other programs on the device, or its heat, slow a step down; a hang is for ever.
_TIMES_THE_SLOWEST: Final = 10
_LEAST_SECONDS: Final = 300.0


class PassShape(NamedTuple):
    """What decides how long a step of a forward pass takes."""

    num_images: int
    height: int
    width: int


class StepBudget:
    """``fixed_seconds``: what the operator says; 0: ten times the slowest step yet of a pass of this shape.

    What counts as a step is all that lies between two signs of life: an evaluation; texts and the first evaluation;
    the decoding.
    """

    def __init__(self, fixed_seconds: float = 0.0) -> None:
        self._fixed_seconds = fixed_seconds
        self._slowest: dict[PassShape, float] = {}

    def seconds(self, shape: PassShape) -> float:
        """For one step of such a pass."""
        if self._fixed_seconds:
            return self._fixed_seconds
        if shape not in self._slowest:
            return FIRST_SECONDS
        return max(_LEAST_SECONDS, _TIMES_THE_SLOWEST * self._slowest[shape])

    def took(self, shape: PassShape, seconds: float) -> None:
        """A whole pass of this shape has ended; its slowest step took so long."""
        self._slowest[shape] = max(seconds, self._slowest.get(shape, 0.0))
