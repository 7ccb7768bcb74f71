"""Kinds of rows: what rows share but for prompt and seed is checked once, and remembered in bounded memory.

A row of a kind that is known has its prompt and seed checked here by the same rules. All others, and whatever is
refused, go through ``JobSpec`` whole, so that a wrong row is told the same sentence in either case.
"""

import json
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from producer.manifests.columns import spec_fields
from producer.manifests.inputs import NO_INPUTS, Inputs, ResolvedInputs
from schemas.errors import FieldProblem, SpecError
from schemas.fields import accepted_seed, is_prompt
from schemas.spec import JobSpec
from schemas.written_spec import SpecKind

#: batches seldom mix more kinds of rows than this
_REMEMBERED: Final = 1_024
_REMEMBERED_CHARACTERS: Final = 4_000_000

_PLAIN: Final = frozenset({str, int, float, bool})

_Key = tuple[tuple[str, type, object], ...]


class CheckedRow(Struct, frozen=True, gc=False):
    """Values that a spec can have. ``seed``: None where the row gives none."""

    kind: SpecKind
    prompt: str
    seed: int | None


class Kinds:
    """Checks the values of rows, under the names of ``producer.manifests.columns.FIELDS``."""

    def __init__(self, inputs: Inputs | None) -> None:
        self._inputs = inputs
        self._known: dict[_Key, SpecKind] = {}
        self._num_characters = 0

    def checked(self, values: Mapping[str, object]) -> CheckedRow | list[FieldProblem]:
        """The row, or what is wrong with it."""
        shared = dict(values)
        prompt, seed = shared.pop("prompt", None), shared.pop("seed", 0)
        key = _key(shared) if shared else ()
        kind = self._known.get(key) if key is not None else None
        if kind is not None and is_prompt(prompt) and (accepted := accepted_seed(seed)) is not None:
            return CheckedRow(kind, prompt, accepted if "seed" in values else None)
        spec, problems = self._spec_of({**values, "seed": seed})
        if spec is None:
            return problems
        kind = SpecKind(spec)
        if key is not None:
            self._remember(key, kind)
        return CheckedRow(kind, spec.prompt, spec.seed if "seed" in values else None)

    def flaws(self, given: Mapping[str, object]) -> list[FieldProblem]:
        """Why no row could have these values. What is wrong only beside a field that rows may give is left to them."""
        _, problems = self._spec_of({"prompt": "any", "seed": 0, **given})
        return [problem for problem in problems if set(problem.beside) <= given.keys()]

    def _spec_of(self, values: Mapping[str, object]) -> tuple[JobSpec | None, list[FieldProblem]]:
        resolved = self._resolved(values)
        try:
            spec = JobSpec.parse(spec_fields({**values, **resolved.fields}))
        except SpecError as error:
            return None, [*map(resolved.explained, error.problems), *resolved.problems]
        problems = [*resolved.problems, *resolved.problems_of(spec)]
        return (None if problems else spec), problems

    def _resolved(self, values: Mapping[str, object]) -> ResolvedInputs:
        if self._inputs is None or ("init_image" not in values and "loras" not in values):
            return NO_INPUTS
        return self._inputs.resolve(values)

    def _remember(self, key: _Key, kind: SpecKind) -> None:
        self._num_characters += kind.size_characters
        if len(self._known) >= _REMEMBERED or self._num_characters > _REMEMBERED_CHARACTERS:
            self._known.clear()
            self._num_characters = kind.size_characters
        self._known[key] = kind


def _key(shared: Mapping[str, object]) -> _Key | None:
    """Equal for rows of one kind, and for no others: 1, 1.0 and True are not the same. None where nothing tells."""
    try:
        return tuple(
            [
                (name, type(value), value if type(value) in _PLAIN else json.dumps(value))
                for name, value in shared.items()
            ]
        )
    except (TypeError, ValueError, RecursionError):  # a mapping of Python's may hold anything
        return None
