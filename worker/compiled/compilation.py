"""Which shapes of a pair are compiled by now. Those that are not are rendered as they are, and compiled meanwhile.

Compiling takes from seconds to minutes, and a queue must not wait for it. A process of its own fills the cache folder;
when it has ended, the device thread finds all of the code there and only has to take it in, which takes seconds.
"""

import logging
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

import torch

from farm.tether import tethered
from schemas.device_options import CompileMode
from worker.compiled.compile_request import CompileRequest
from worker.compiled.compiled_shapes import compiled_shapes
from worker.compiled.unet_shapes import UnetShape
from worker.loading.pipelines import LoadedPair, dtype_name

log = logging.getLogger("nightshift.worker")

#: of the UNets together, in one process: each keeps its code in memory, and is looked through at each call
MAX_SHAPES: Final = 32


class Running(Protocol):
    """A process; ``subprocess.Popen`` is one."""

    def poll(self) -> int | None: ...
    def kill(self) -> None: ...
    def wait(self) -> int: ...


class Compilation:
    """Of one worker process. The device thread alone asks it.

    ``ready``: compiled by an earlier process, into the same folder. ``keep``: told of what was compiled.
    """

    def __init__(
        self,
        mode: CompileMode,
        start: Callable[[Sequence[UnetShape]], Running],
        ready: Iterable[UnetShape] = (),
        keep: Callable[[Sequence[UnetShape]], None] = lambda _: None,
    ) -> None:
        self._mode = mode
        self._start = start
        self._keep = keep
        self._seen: set[UnetShape] = set()
        self._ready = set(ready)
        #: those whose code this process has, or has asked for
        self._in_use: set[UnetShape] = set()
        self._is_full = False
        self._given_up: set[UnetShape] = set()
        self._under_way: tuple[Running, list[UnetShape]] | None = None

    def mode(self, shapes: Sequence[UnetShape]) -> CompileMode:
        """How a pass of these shapes is rendered now. The second pass of a shape has it compiled, beside itself: what
        comes once is not worth it. A pass is compiled as a whole or not at all, so that its record is true."""
        if self._mode == "off":
            return "off"
        self._take_in()
        missing = [shape for shape in shapes if shape not in self._ready]
        if not missing:
            return self._mode if self._has_room(shapes) else "off"
        if self._is_worth_it(missing) and self._has_room(missing):
            self._begin(missing)
        self._seen.update(shapes)
        return "off"

    def give_up(self, shapes: Sequence[UnetShape], reason: str) -> None:
        """Their code, which should be ready, cannot be used: from now on they are rendered as they are."""
        self._ready.difference_update(shapes)
        self._in_use.difference_update(shapes)
        self._given_up.update(shapes)
        log.warning("not compiled, and rendered as it is: %s; %s", _said(shapes), reason)

    def close(self) -> None:
        """Ends the process that compiles."""
        if self._under_way is not None:
            self._under_way[0].kill()
            self._under_way[0].wait()

    def _begin(self, missing: Sequence[UnetShape]) -> None:
        try:
            self._under_way = self._start(missing), list(missing)
        except OSError as error:
            self.give_up(missing, f"the compile process does not start: {error}")

    def _is_worth_it(self, missing: Sequence[UnetShape]) -> bool:
        is_known = self._seen.issuperset(missing) and self._given_up.isdisjoint(missing)
        return is_known and self._under_way is None

    def _has_room(self, shapes: Sequence[UnetShape]) -> bool:
        """For their code, which is in use from then on. What earlier processes compiled takes none before it is."""
        wanted = self._in_use.union(shapes)
        if len(wanted) <= MAX_SHAPES:
            self._in_use = wanted
            return True
        if not self._is_full:
            self._is_full = True
            log.warning("this worker uses compiled code for %d shapes, which is the most; it renders others as they are"
                        " until it is started again: %s", len(self._in_use), _said(shapes))  # fmt: skip
        return False

    def _take_in(self) -> None:
        if self._under_way is None or (code := self._under_way[0].poll()) is None:
            return
        shapes, self._under_way = self._under_way[1], None
        if code == 0:
            self._ready.update(shapes)
            self._keep(shapes)
            log.info("compiled from now on: %s", _said(shapes))
            return
        self.give_up(shapes, f"the compile process ended with {code}; what it said stands above")


def compilation(pair: LoadedPair) -> Compilation:
    """Of this pair, with what earlier processes have compiled for it here."""
    mode = pair.pair.options.compile
    if mode == "off":
        return Compilation(mode, lambda shapes: _started(compile_request(pair, shapes)))
    kept = compiled_shapes(pair)
    return Compilation(mode, lambda shapes: _started(compile_request(pair, shapes)), kept.read(), kept.add)


def compile_request(pair: LoadedPair, shapes: Sequence[UnetShape]) -> CompileRequest:
    """For the UNets of this pair."""
    pipes = {"base": pair.base, "refiner": pair.refiner}
    return CompileRequest(
        device=str(pair.device),
        dtype=dtype_name(pair.dtype),
        num_threads=torch.get_num_threads(),
        options=pair.pair.options,
        unets={part: dict(pipe.unet.config) for part, pipe in pipes.items() if pipe is not None},
        pooled_width=pair.base.text_encoder_2.config.projection_dim,
        shapes=tuple(shapes),
    )


def _started(request: CompileRequest) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-P", "-m", "worker.compiled.compile_process", request.model_dump_json()]
    return subprocess.Popen(tethered(command), stdin=subprocess.DEVNULL)


def _said(shapes: Sequence[UnetShape]) -> str:
    return ", ".join(f"{shape.part} with {shape.rows} rows of {shape.width} x {shape.height}" for shape in shapes)
