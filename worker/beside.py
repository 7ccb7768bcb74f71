"""Work on a thread of its own, which keeps no process from ending."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def beside(name: str, work: Callable[[], T]) -> "Future[T]":
    """Begins at once. Not an executor's: Python waits for its threads at the end, and a digest takes its time."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=run, name=name, daemon=True).start()
    return future
