"""Named points at which a process of the farm can be made to fail. The product knows nothing of them.

``$CHAOS_POINTS`` is a folder. A file in it that is named after a point, with an action as its content, arms the point
once: the first process that comes by takes the file, leaves word in ``fired/``, and does it. ``launch`` puts the points
around functions of the product; which ones, its tables say.
"""

import json
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from tests.chaos.quiet_moment import quiet_moment

#: Actions that a point's own wrapper has to do: they raise something, or change what comes out.
OF_THE_WRAPPER = frozenset({"STICKY", "NAN"})
_HUNG_SECONDS = 600.0


def reached(point: str, **note: Any) -> str | None:
    """Fails here, if the point is armed. Returns the action where it is for the caller to do."""
    armed = Path(os.environ["CHAOS_POINTS"], point)
    if not armed.exists():
        return None
    taken = armed.with_name(f".{point}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        armed.rename(taken)
    except FileNotFoundError:  # another process was faster
        return None
    action = taken.read_text()
    _leave_word(taken, {"point": point, "action": action, "pid": os.getpid(), "at": time.time(), **note})
    if action in OF_THE_WRAPPER:
        return action
    _do(action)
    return None


def is_on(point: str) -> bool:
    """Whether a lasting fault is on: its file stays until the harness takes it away."""
    return Path(os.environ["CHAOS_POINTS"], point).exists()


def note(point: str) -> None:
    """Leaves word that a lasting fault has struck."""
    Path(os.environ["CHAOS_POINTS"], "fired", point).touch()


def before(module: Any, name: str, point: str) -> None:
    """Puts a point before a function of the product."""

    def wrapper(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        reached(point)
        return function(*args, **kwargs)

    around(module, name, wrapper)


def after(module: Any, name: str, point: str, *, answered: bool = False) -> None:
    """Puts a point behind a function of the product; with ``answered``, only where it returned something."""

    def wrapper(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        answer = function(*args, **kwargs)
        if answer or not answered:
            reached(point)
        return answer

    around(module, name, wrapper)


def around(module: Any, name: str, wrapper: Callable[..., Any]) -> None:
    """``wrapper(function, *args, **kwargs)`` in the place of the function. Fails where the product has no such name."""
    function = getattr(module, name)

    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return wrapper(function, *args, **kwargs)

    setattr(module, name, wrapped)


def _leave_word(taken: Path, word: dict[str, Any]) -> None:
    partial = taken.with_suffix(".partial")
    partial.write_text(json.dumps(word))
    partial.rename(taken.parent / "fired" / taken.name)
    taken.unlink()


def _send(number: int) -> None:
    """To this thread: one sent to the process may find another thread first, while this one runs on past the point."""
    signal.pthread_kill(threading.get_ident(), number)


def _do(action: str) -> None:
    match action:
        case "KILL":
            _send(signal.SIGKILL)
        case "STOP":
            with quiet_moment():
                _send(signal.SIGSTOP)
        case "STOP IN A TRANSACTION":
            _send(signal.SIGSTOP)
        case "HANG":
            time.sleep(_HUNG_SECONDS)
        case _:
            raise AssertionError(f"no action {action!r}")
