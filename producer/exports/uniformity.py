"""Whether the images of a dataset were made alike: same weights, libraries, device, and images in a forward pass.

Beside spec and environment two things move pixels, by the last bits: the size of a forward pass, and whether its shape
was compiled by then.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from producer.exports.tally import Tally
from schemas.printable import printable

_SHOWN: Final = 8


def differences(tally: Tally, environments: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """``device: cpu (3 images), NVIDIA H200 (4,000)`` for each thing that is not the same for all."""
    fields = sorted({name for content in environments.values() for name in _flat(content)})
    flat = {digest: _flat(content) for digest, content in environments.items()}
    found = []
    for name in fields:
        counted: Counter[str] = Counter()
        for (digest, *_), num in tally.made_by.items():
            counted[flat[digest].get(name, "none")] += num
        found += _sentence(name, counted)
    sizes: Counter[str] = Counter()
    modes: Counter[str] = Counter()
    for (_, size, mode), num in tally.made_by.items():
        sizes[str(size)] += num
        modes[mode] += num
    return [*found, *_sentence("forward_pass_size", sizes), *_sentence("rendered with compile_mode", modes)]


def _flat(content: Mapping[str, Any]) -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in content.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": str(part) for inner, part in value.items()}
        else:
            flat[name] = "none" if value is None else str(value)
    return flat


def _sentence(name: str, counted: Counter[str]) -> list[str]:
    if len(counted) < 2:
        return []
    common = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    more = [f"and {len(common) - _SHOWN} more"] if len(common) > _SHOWN else []
    values = [f"{value} ({num:,})" for value, num in common[:_SHOWN]]
    return [printable(f"{name}: {', '.join([*values, *more])}")]
