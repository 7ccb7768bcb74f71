"""Work on files by a few threads, some steps ahead, in order: reading, hashing and decoding release the GIL."""

import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

from PIL import Image

T = TypeVar("T")
Answer = TypeVar("Answer")

_THREADS: Final = 8
#: no more than so many lots are held in memory
_AHEAD: Final = 16
#: what a thread is given at a time: one large image, or some small ones, which are less work than handing them over
_LOT_BYTES: Final = 1 << 18
_LOT_ITEMS: Final = 128


def read_ahead(
    items: Iterable[T], work: Callable[[T], Answer], size_bytes: Callable[[T], int]
) -> Iterator[tuple[T, Answer]]:
    """Each item with its answer, in the items' order. What ``work`` raises comes where its item would, or a few items
    sooner."""
    pool = ThreadPoolExecutor(_THREADS, "export")

    def answered(lot: list[T]) -> list[tuple[T, Answer]]:
        return [(item, work(item)) for item in lot]

    try:
        with warnings.catch_warnings():  # the whole process's, so set here and not in each thread
            warnings.simplefilter("ignore")  # what Pillow thinks of odd EXIF
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            for done in _in_order(pool.submit(answered, lot) for lot in _lots(items, size_bytes)):
                yield from done.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _lots(items: Iterable[T], size_bytes: Callable[[T], int]) -> Iterator[list[T]]:
    lot: list[T] = []
    num_bytes = 0
    for item in items:
        lot.append(item)
        num_bytes += size_bytes(item)
        if num_bytes >= _LOT_BYTES or len(lot) >= _LOT_ITEMS:
            yield lot
            lot, num_bytes = [], 0
    if lot:
        yield lot


def _in_order(begun: Iterable[Future[Answer]]) -> Iterator[Future[Answer]]:
    waiting: deque[Future[Answer]] = deque()
    for one in begun:
        waiting.append(one)
        if len(waiting) >= _AHEAD:
            yield waiting.popleft()
    yield from waiting
