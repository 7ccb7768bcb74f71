"""Ctrl-C while rows are submitted is answered at once: taking back what is staged may take a while."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

_SAID: Final = b"\nstopping; the rows so far are taken back (Ctrl-C again leaves that to the dispatcher)\n"
_STDERR: Final = 2


@contextmanager
def answered_interrupts() -> Iterator[None]:
    """Of the main thread. The first one says what happens, the second one is as it was before."""
    before = signal.getsignal(signal.SIGINT)

    def answer(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        os.write(_STDERR, _SAID)  # not by print: it may be in the middle of another one
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, answer)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
