"""The rows of `benchmarks/gpu.py`: which device options, how far their images may be from the exact ones, and what they
cost to try."""

import argparse
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

#: mean differences of 8-bit values: another order of sums; eight bits in place of sixteen
ROUNDING: Final = 1.0
EIGHT_BITS: Final = 12.0


@dataclass(frozen=True)
class Row:
    """``seconds``: about what it takes with SDXL's architecture on an H200, so that the last row is not cut off."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    tolerance: float = ROUNDING
    seconds: float = 25.0
    #: None: as the command says
    pass_size: int | None = None
    #: whole runs with watermark, PNG and all, instead of single steps
    end_to_end: bool = False


_IN_16_BITS: Final = MappingProxyType(
    {"channels_last": True, "fused_qkv": True, "attention": "auto", "vae_dtype": "bfloat16", "compile": "regional"}
)

#: no options of ours: base and refiner called one image after the other
SCRIPT: Final = Row("diffusers as documented", seconds=15)

#: What the goals are about first, then the most telling: what the time does not suffice for is left out at the end.
ROWS: Final = (
    SCRIPT,
    Row("exact", tolerance=0.0),
    Row("exact end to end", tolerance=0.0, seconds=60, end_to_end=True),
    Row("fp8 dynamic all", {**_IN_16_BITS, "fp8": "dynamic"}, EIGHT_BITS, seconds=90),
    Row("16 bits all", dict(_IN_16_BITS), seconds=90),
    Row("16 bits all end to end", dict(_IN_16_BITS), seconds=60, end_to_end=True),
    Row("fp8 weights", {"fp8": "weights"}, EIGHT_BITS),
    Row("exact passes of 1", tolerance=0.0, seconds=10, pass_size=1),
    Row("cuda_graphs passes of 1", {"cuda_graphs": True}, tolerance=0.0, seconds=15, pass_size=1),
    Row("channels_last", {"channels_last": True}),
    Row("fused_qkv", {"fused_qkv": True}),
    Row("attention auto", {"attention": "auto"}),
    Row("vae bfloat16", {"vae_dtype": "bfloat16"}),
    Row("compile regional", {"compile": "regional"}, seconds=60),
    Row("compile full", {"compile": "full"}, seconds=300),
)
#: takes minutes of a CPU's time for the smallest pair
NOT_ON_A_CPU: Final = frozenset({"compile full"})


def rows_named(text: str) -> list[Row]:
    """``text``: names with commas between them.

    Raises:
        argparse.ArgumentTypeError: there is no such row; says which there are.
    """
    names = [name.strip() for name in text.split(",")]
    known = [row.name for row in ROWS]
    if unknown := [repr(name) for name in names if name not in known]:
        raise argparse.ArgumentTypeError(f"there is no {', '.join(unknown)}; the rows are {', '.join(known)}")
    return [row for row in ROWS if row.name in names]


def rows_for(device: str) -> list[Row]:
    """Those of a run that names none."""
    return [row for row in ROWS if device != "cpu" or row.name not in NOT_ON_A_CPU]
