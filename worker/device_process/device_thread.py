"""The one thread that touches the device: renders forward passes, pack after pack."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import replace
from queue import SimpleQueue
from typing import NamedTuple

from schemas.device_options import CompileMode
from schemas.errors import DeviceLostError, DeviceMemoryError, InputError
from worker.compiled.compilation import compilation
from worker.compiled.compiling import CompiledCodeError
from worker.compiled.unet_shapes import UnetShape, unet_shapes
from worker.device_process.preparing import Pass
from worker.device_process.stopping import DrainedError
from worker.device_process.watchdog import Watchdog
from worker.loading.pipelines import LoadedPair
from worker.passes.denoising import Stop
from worker.passes.pass_limits import PassLimits
from worker.passes.pass_measuring import PassMeasurer
from worker.passes.rendering import RenderedPass, render


class PassOutcome(NamedTuple):
    """A forward pass and what came of it: its images, or the error that is its jobs' own."""

    one: Pass
    result: RenderedPass | InputError | DeviceMemoryError
    seconds: float


class DeviceThread:
    """Packs are rendered in the order in which they were asked for.

    ``measurer``: of a device whose memory can be measured; else the limits are what they are until a pass does not fit.
    """

    def __init__(
        self, pair: LoadedPair, limits: PassLimits, watchdog: Watchdog, measurer: PassMeasurer | None = None
    ) -> None:
        self._pair = pair
        self._limits = limits
        self._watchdog = watchdog
        self._measurer = measurer
        self._is_lost = False
        self._compilation = compilation(pair)
        self._thread = ThreadPoolExecutor(1, "device")

    def close(self) -> None:
        self._thread.shutdown()
        self._compilation.close()

    def rendered(self, passes: Sequence[Pass], begin: Callable[[], None], stop: Stop) -> Iterator[PassOutcome]:
        """Renders the passes of a pack, no other pack's between them. Yields each when it is done, while the device
        goes on; one that was halved as its halves.

        begin: called on the device thread when it is the pack's turn; what it raises ends the pack.
        stop: asked after every evaluation.

        Raises:
            DrainedError: the device was lost before it was the pack's turn.
            DeviceLostError: it was lost with this pack.
            LeaseLostError: ``stop`` answered yes.
        """
        outcomes: SimpleQueue[PassOutcome | None] = SimpleQueue()
        end = self._thread.submit(copy_context().run, self._render_all, passes, begin, stop, outcomes)
        while (outcome := outcomes.get()) is not None:
            yield outcome
        end.result()

    def _render_all(
        self, passes: Sequence[Pass], begin: Callable[[], None], stop: Stop,
        outcomes: "SimpleQueue[PassOutcome | None]",
    ) -> None:  # fmt: skip
        try:
            if self._is_lost:
                raise DrainedError("the device is lost")
            begin()
            waiting = deque(passes)
            while waiting:
                outcome = self._outcome(waiting.popleft(), stop)
                if isinstance(outcome, PassOutcome):
                    outcomes.put(outcome)
                else:
                    waiting.extendleft(reversed(outcome))
        except DeviceLostError:
            self._is_lost = True  # here, on the device thread: the next pack in line must not be blamed
            raise
        finally:
            outcomes.put(None)

    def _outcome(self, one: Pass, stop: Stop) -> PassOutcome | tuple[Pass, ...]:
        """The halves of a pass that the device's memory does not hold, to be rendered in its place."""
        self._learn_limit(one, stop)
        if len(one) > self._limits.most(one.size):
            return one.halves()
        started = time.monotonic()
        result: RenderedPass | InputError | DeviceMemoryError
        try:
            result = self._watched(one, stop)
        except DeviceMemoryError as error:
            if len(one) > 1:
                self._limits.halve(one.size, len(one))
                return one.halves()
            result = error
        except InputError as error:
            result = error
        return PassOutcome(one, result, time.monotonic() - started)

    def _learn_limit(self, one: Pass, stop: Stop) -> None:
        """Seconds, once for each size; a single image has to be tried in any case."""
        if self._measurer is None or len(one) == 1 or self._limits.knows(one.size):
            return
        with self._watchdog.watching(one.shape) as sign_of_life:
            self._limits.learn(one.size, self._measurer.limit(one.size, _alive(sign_of_life, stop)))

    def _watched(self, one: Pass, stop: Stop) -> RenderedPass:
        shapes = unet_shapes(one.specs, one.chunks.base, one.chunks.refiner)
        mode = self._compilation.mode(shapes)
        with self._watchdog.watching(one.shape) as sign_of_life, self._measured(one, mode):
            made = self._rendered(one, _alive(sign_of_life, stop), mode, shapes)
        return replace(made, pictures=made.pictures[: len(one.jobs)])

    def _rendered(self, one: Pass, stop: Stop, mode: CompileMode, shapes: Sequence[UnetShape]) -> RenderedPass:
        """As the networks are, where there is no code after all."""
        try:
            return render(self._pair, one.specs, stop, one.inputs, mode)
        except CompiledCodeError as error:
            reason = str(error)
        self._compilation.give_up(shapes, reason)
        return render(self._pair, one.specs, stop, one.inputs)

    @contextmanager
    def _measured(self, one: Pass, mode: CompileMode) -> Iterator[None]:
        """Compiled code may take more memory than the networks as they are, by which the limit was measured. It is
        measured while it renders: compiling it before, for several numbers of images, would keep the queue waiting."""
        if self._measurer is None or mode == "off" or len(one) == 1:
            yield
            return
        self._measurer.begin()
        yield
        if self._measurer.took_too_much():
            self._limits.halve(one.size, len(one))


def _alive(sign_of_life: Callable[[], None], stop: Stop) -> Stop:
    def alive_and_stop() -> bool:
        sign_of_life()
        return stop()

    return alive_and_stop
