"""Which way of offloading a device needs. Pure: knows numbers of bytes, no torch."""

from dataclasses import dataclass
from typing import Final

from schemas.pair import Offload

#: What a forward pass needs beside the weights: decoding one image of 1024 x 1024 in float32 takes 3 GB.
RESERVE_BYTES: Final = 3 * 2**30


@dataclass(frozen=True)
class WeightSizes:
    """Bytes of parameters: of the whole pair, and of what has to be on the device at once when offloading it."""

    total_bytes: int
    largest_bytes: int


def choose_offload(free_bytes: int, sizes: WeightSizes, reserve_bytes: int = RESERVE_BYTES) -> Offload:
    """The fastest way that fits: everything on the device, one network at a time, one layer at a time."""
    room_bytes = free_bytes - reserve_bytes
    if sizes.total_bytes <= room_bytes:
        return "none"
    return "model" if sizes.largest_bytes <= room_bytes else "sequential"
