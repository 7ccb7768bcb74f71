"""How far a picture that was made again is from the recorded one, and what was otherwise when it was made."""

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from farm.recorded_images import Recorded
from schemas.provenance import Environment, Provenance

Verdict = Literal["identical file", "identical pixels", "different pixels", "different size"]

#: field of an environment → what to call it
_SAID = {
    "pair_fingerprint": "the weights or options of the pair",
    "base_hash": "the base's weights",
    "refiner_hash": "the refiner's weights",
    "attention_backend": "the attention backend",
    "compile_mode": "the compile mode",
}


@dataclass(frozen=True)
class Comparison:
    """``largest`` and ``mean``: differences of 8-bit values; ``share``: of the values that differ."""

    verdict: Verdict
    largest: int = 0
    mean: float = 0.0
    share: float = 0.0
    #: sentences
    otherwise: tuple[str, ...] = ()

    @property
    def is_reproduced(self) -> bool:
        return self.verdict in ("identical file", "identical pixels")


def compared(
    files: tuple[bytes, bytes], pixels: tuple[NDArray[np.uint8], NDArray[np.uint8]], otherwise: tuple[str, ...]
) -> Comparison:
    """The recorded and the new one, as files and as the RGB pixels that a reader sees in them."""
    if files[0] == files[1]:
        return Comparison("identical file", otherwise=otherwise)
    if pixels[0].shape != pixels[1].shape:
        return Comparison("different size", otherwise=otherwise)
    far = np.abs(pixels[0].astype(np.int16) - pixels[1].astype(np.int16))
    if not far.any():
        return Comparison("identical pixels", otherwise=otherwise)
    return Comparison("different pixels", int(far.max()), float(far.mean()), float((far > 0).mean()), otherwise)


def changes_since(recorded: Recorded, content: bytes, made: NDArray[np.uint8]) -> tuple[str, ...]:
    """A sentence where the file in the store is not the one that the ledger knows by its sha256.

    ``made``: the pixels that were made again, before a lossy format has them.
    """
    if recorded.sha256 is None or hashlib.sha256(content).hexdigest() == recorded.sha256:
        return ()
    alike = hashlib.sha256(made.tobytes()).hexdigest() == recorded.pixel_sha256
    said = "has the recorded pixels" if alike else "has other pixels than were recorded"
    return (f"the file in the store is not the recorded one: it was changed since; the image made again {said}",)


def differences(then: Environment, now: Environment) -> tuple[str, ...]:
    """A sentence for each recorded thing that is otherwise now: weights, versions, device."""
    return tuple(_field_differences(then.model_dump(), now.model_dump()))


def _field_differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    found = []
    for name in then | now:
        before, after = then.get(name), now.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            found += _field_differences(before, after)
        elif before != after:
            found.append(f"{_SAID.get(name, name)}: {_said(before)} then, {_said(after)} now")
    return found


def _said(value: object) -> str:
    return "none" if value is None else str(value)


def run_differences(then: Provenance, now: Provenance) -> tuple[str, ...]:
    """The same of what is recorded for one image: the steps that ran, the sigma at the handoff."""
    return tuple(_field_differences(then.model_dump(), now.model_dump()))
