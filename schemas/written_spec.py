"""Specs as the ledger keeps them: canonical JSON, digest and pack key, without a ``JobSpec`` for each.

The rows of a manifest mostly differ in nothing but prompt and seed. What they share is a ``SpecKind``, which a
``JobSpec`` has judged once; the canonical JSON of each spec is put together around its prompt and seed, and is the very
text that its ``JobSpec`` would write.
"""

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from schemas.digest import canonical_json, canonical_text, sha256_hex
from schemas.spec import JobSpec

_PROMPT, _SEED, _OUTPUT = "prompt", "seed", "output"


class SpecKind:
    """All specs that equal ``sample`` but for prompt and seed. They share a pack key."""

    __slots__ = ("_after", "_before", "_before_in_picture", "_between", "_end", "pack_key", "sample")

    def __init__(self, sample: JobSpec) -> None:
        content = sample.content_without_seed
        picture = {name: value for name, value in content.items() if name != _OUTPUT}
        between = _members({name: value for name, value in content.items() if _PROMPT < name < _SEED})
        after = _members({name: value for name, value in content.items() if name > _SEED})
        self.sample: Final = sample
        self.pack_key: Final = sample.pack_key
        self._before = _beginning({name: value for name, value in content.items() if name < _PROMPT})
        self._before_in_picture = _beginning({name: value for name, value in picture.items() if name < _PROMPT})
        self._between = f'{between},"seed":"'
        self._after = f'"{after}}}'
        self._end = f"{between}{after}}}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SpecKind) and self._parts == other._parts

    def __hash__(self) -> int:
        return hash(self._parts)

    @property
    def _parts(self) -> tuple[str, str, str]:
        return self._before, self._between, self._after

    @property
    def size_characters(self) -> int:
        """About as many as it takes memory for."""
        return sum(map(len, self._parts))

    @property
    def has_output(self) -> bool:
        """Whether the spec says something of its file, so that ``picture`` is not all of it."""
        return self._before != self._before_in_picture

    def written(self, prompt: str, seed: int) -> "WrittenSpec":
        """The spec with this prompt and seed, which have been checked."""
        canonical = f"{self._before}{canonical_text(prompt)}{self._between}{seed}{self._after}"
        return WrittenSpec(self, prompt, seed, canonical, sha256_hex(canonical))

    def without_seed(self, prompt: str) -> str:
        """Canonical JSON of ``JobSpec.content_without_seed``."""
        return f"{self._before}{canonical_text(prompt)}{self._end}"

    def picture(self, prompt: str) -> str:
        """The same without ``output``, which decides the file and no pixel."""
        return f"{self._before_in_picture}{canonical_text(prompt)}{self._end}"


def _beginning(content: Mapping[str, Any]) -> str:
    """Canonical JSON until its prompt."""
    return f'{{{_members(content)[1:]}{"," if content else ""}"prompt":'


def _members(content: Mapping[str, Any]) -> str:
    """Canonical JSON's members, with a comma before each."""
    return "," + canonical_json(content)[1:-1] if content else ""


class WrittenSpec(Struct, frozen=True, gc=False):
    """``canonical`` and ``digest``: as those of the ``JobSpec``."""

    kind: SpecKind
    prompt: str
    seed: int
    canonical: str
    digest: str

    @staticmethod
    def of(spec: JobSpec) -> "WrittenSpec":
        return SpecKind(spec).written(spec.prompt, spec.seed)

    @property
    def spec(self) -> JobSpec:
        """Made anew each time."""
        return self.kind.sample.model_copy(update={_PROMPT: self.prompt, _SEED: self.seed})
