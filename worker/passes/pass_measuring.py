"""Measures how many images of a size the device's memory holds, before the first pass of that size.

One image is rendered, then two, then as many as the line through both says: two steps each, with guidance and the
refiner, which take the most. What was found lies in the cache folder, one small file for each size, named by all that
it depends on: a machine's own knowledge, which no other machine asks for and nobody misses when it is deleted.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from farm.image_store import write_atomically
from schemas.digest import canonical_json, sha256_hex
from schemas.errors import DeviceMemoryError
from schemas.spec import JobSpec
from worker.environment import environment
from worker.loading.pipelines import LoadedPair
from worker.passes.denoising import Stop
from worker.passes.memory_probe import MemoryProbe
from worker.passes.pass_limits import Size
from worker.passes.pass_memory import MemoryUse, PassMemory
from worker.passes.rendering import render

log: Final = logging.getLogger("nightshift.worker")

_NUM_STEPS: Final = 2


@dataclass(frozen=True)
class PassMeasurer:
    """``most``: the limit that the operator sets. ``memory_share``: of the device's memory, that a pass may leave no
    more than the rest of."""

    pair: LoadedPair
    probe: MemoryProbe
    folder: Path
    most: int
    memory_share: float

    def limit(self, size: Size, stop: Stop) -> int:
        """Images of this size in a forward pass, at the most. Renders where it is not known yet. ``stop``: as in
        ``worker.passes.rendering.render``, which also says what is raised."""
        made_for = self._made_for(size)
        path = self.folder / f"{sha256_hex(canonical_json(made_for))}.json"
        memory = _read(path)
        budget_bytes = self._budget_bytes()
        while (num_images := memory.untried(self.most, budget_bytes)) is not None:
            memory = memory.with_use(num_images, self._use(size, num_images, stop))
            _write(path, {"made_for": made_for, "uses": memory.to_json()})
        limit = memory.limit(self.most, budget_bytes)
        log.info(
            "forward passes of %d x %d: %d images at the most, by %.2f GB for one and a bound of %.2f GB",
            size[1], size[0], limit, memory.bytes_of(1) / 1e9, budget_bytes / 1e9,
        )  # fmt: skip
        return limit

    def begin(self) -> None:
        """Before a pass that ``took_too_much`` is asked of."""
        self.probe.begin()

    def took_too_much(self) -> bool:
        """Whether what was rendered since ``begin`` took more of the device's memory than a pass may."""
        peak_bytes, budget_bytes = self.probe.peak_bytes(), self._budget_bytes()
        if peak_bytes > budget_bytes:
            log.info("a pass took %.2f GB, above the bound of %.2f GB", peak_bytes / 1e9, budget_bytes / 1e9)
        return peak_bytes > budget_bytes

    def _budget_bytes(self) -> int:
        return int(self.memory_share * self.probe.total_bytes) - self.probe.others_bytes()

    def _made_for(self, size: Size) -> dict[str, Any]:
        """All that a pass's memory depends on: weights, options, libraries, device, size."""
        return {
            "environment": json.loads(environment(self.pair).model_dump_json()),
            "offload": self.pair.offload,
            "total_bytes": self.probe.total_bytes,
            "size": size,
        }

    def _use(self, size: Size, num_images: int, stop: Stop) -> MemoryUse:
        """Where the memory does not hold it: more than there is."""
        peaks = []

        def note_and_stop() -> bool:
            peaks.append(self.probe.peak_bytes())
            self.probe.begin()  # after the last evaluation, for the decoding
            return stop()

        self.probe.begin()
        try:
            render(self.pair, [self._spec(size, seed) for seed in range(num_images)], note_and_stop)
        except DeviceMemoryError:
            return MemoryUse(self.probe.total_bytes + 1, 0)
        return MemoryUse(max(peaks), self.probe.peak_bytes())

    def _spec(self, size: Size, seed: int) -> JobSpec:
        refiner = {"mode": "off"} if self.pair.refiner is None else {"start_step": 1}
        return JobSpec.parse(
            {"prompt": "a", "seed": seed, "height": size[0], "width": size[1], "num_inference_steps": _NUM_STEPS}
            | {"refiner": refiner}
        )


def _read(path: Path) -> PassMemory:
    """Empty where there is none, or none that can be read: then it is measured again."""
    try:
        return PassMemory.from_json(json.loads(path.read_text(encoding="utf-8"))["uses"])
    except (OSError, ValueError, KeyError, TypeError):
        return PassMemory()


def _write(path: Path, content: dict[str, Any]) -> None:
    try:
        write_atomically(path, json.dumps(content).encode())
    except OSError as error:
        log.warning("what a forward pass takes cannot be kept in %s: %s", path, error)
