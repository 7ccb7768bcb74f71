"""What `benchmarks/gpu.py` says of one row. Pure."""

from dataclasses import dataclass
from math import nan


@dataclass(frozen=True)
class Figures:
    """nan: does not apply, or was not measured. ``denoising``, ``decoding``, ``waiting``: shares of a run at 32 + 8
    steps. ``difference``: from the exact images, mean of 8-bit values."""

    images_per_s_20: float
    images_per_s_40: float
    base_step_ms: float = nan
    refiner_step_ms: float = nan
    denoising: float = nan
    decoding: float = nan
    waiting: float = nan
    peak_gb: float = nan
    warm_up_s: float = nan
    difference: float = nan
