"""For how long a pack may be passed over for others whose shape a device has: pure policy."""

from typing import Final

ODD_SHAPE_SECONDS: Final = 60.0
_TIMES_THE_QUEUE: Final = 2.0


def odd_shape_seconds(pack_seconds: float, packs_per_worker: int) -> float:
    """A minute, or twice what a pack waits for in a queue of so many packs for each worker that is first in, first out.
    Were it no more than that, each pack would soon have waited for too long, and none be passed over.

    ``pack_seconds``: what a pack takes the worker that asks.
    """
    return max(ODD_SHAPE_SECONDS, _TIMES_THE_QUEUE * packs_per_worker * pack_seconds)
