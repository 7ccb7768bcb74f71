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
#: no more than so many images are held in memory
_AHEAD: Final = 16


def read_ahead(items: Iterable[T], work: Callable[[T], Answer]) -> Iterator[tuple[T, Answer]]:
    """Each item with its answer, in the items' order. What ``work`` raises comes where its item would."""
    pool = ThreadPoolExecutor(_THREADS, "export")
    try:
        with warnings.catch_warnings():  # the whole process's, so set here and not in each thread
            warnings.simplefilter("ignore")  # what Pillow thinks of odd EXIF
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield from _in_order((item, pool.submit(work, item)) for item in items)
    finally:
        pool.shutdown(cancel_futures=True)


def _in_order(begun: "Iterable[tuple[T, Future[Answer]]]") -> Iterator[tuple[T, Answer]]:
    waiting: deque[tuple[T, Future[Answer]]] = deque()
    for one in begun:
        waiting.append(one)
        if len(waiting) >= _AHEAD:
            yield _next(waiting)
    while waiting:
        yield _next(waiting)


def _next(waiting: "deque[tuple[T, Future[Answer]]]") -> tuple[T, Answer]:
    item, future = waiting.popleft()
    return item, future.result()
