"""How many images of a size the device's memory holds: measured, or learnt from passes that it did not hold. Pure."""

import logging
from threading import Lock

log = logging.getLogger("nightshift.worker")

#: (height, width)
Size = tuple[int, int]


class PassLimits:
    """Threads share it: packs are split by it while the device learns. Holds for one process, so for one pair."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._learnt: dict[Size, int] = {}
        self._lock = Lock()

    def most(self, size: Size) -> int:
        """Images in a forward pass of this size, at the most."""
        return self._learnt.get(size, self._most)

    def knows(self, size: Size) -> bool:
        """Whether anything was learnt of this size."""
        return size in self._learnt

    def learn(self, size: Size, num_images: int) -> None:
        """So many were measured to fit."""
        with self._lock:
            self._learnt[size] = num_images

    def halve(self, size: Size, num_images: int) -> None:
        """So many images, at least 2, did not fit. Says so once for each limit."""
        with self._lock:
            if num_images // 2 >= self.most(size):
                return
            self._learnt[size] = num_images // 2
        log.warning(
            "the device's memory does not hold a pass of %d images of %d x %d; from now on %d of them share one",
            num_images, size[1], size[0], num_images // 2,
        )  # fmt: skip
