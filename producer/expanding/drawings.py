"""Drawings: the texts that a row's templates become: one by the row's identity, or all of them; and how many there are.

A sampled drawing's seed is sha256 over the base seed, the row and how many equal rows were drawn before it: neither the
row's line nor the library's own random state has a part in it.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from random import Random
from types import MappingProxyType
from typing import Final

from producer.expanding.choices import MOST, Offer
from producer.expanding.expansion import TemplateMode
from producer.expanding.repeats import Repeats
from producer.expanding.templates import Templates, is_template
from schemas.digest import canonical_json, sha256_hex
from schemas.errors import FieldProblem, SpecError, TemplateError

#: the fields that may be templates, in the order in which they are drawn
TEMPLATE_FIELDS: Final = (
    "prompt", "prompt_2", "negative_prompt", "negative_prompt_2", "refiner.prompt", "refiner.negative_prompt",
)  # fmt: skip
#: meta of a job: the template of each field that had one, and the seed of the drawing
META_PREFIX: Final = "template."
META_SEED: Final = f"{META_PREFIX}seed"


@dataclass(frozen=True)
class Drawing:
    """A row's own values and the defaults, with texts in the place of templates. ``copies``: which images of the row
    have it, from 0. ``meta``: what the jobs record of it."""

    own: Mapping[str, object]
    defaults: Mapping[str, object]
    copies: range
    meta: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class RowValues:
    """A row's own values, the defaults, and of both the ``values`` that say something and that no sweep gives."""

    own: Mapping[str, object]
    defaults: Mapping[str, object]
    values: Mapping[str, object]

    def replaced(self, texts: Mapping[str, str]) -> tuple[dict[str, object], dict[str, object]]:
        """The row's own values and the defaults, with each text in the place of its template."""
        own = {name: texts.get(name, value) for name, value in self.own.items()}
        return own, {name: texts.get(name, value) for name, value in self.defaults.items()}


def any_time() -> None:
    """However long it takes."""


class Drawings:
    """Finds a row's templates and draws from them. ``mode`` None: there are none. ``check_time``: before each reading
    and drawing; it may raise."""

    def __init__(self, mode: TemplateMode | None, templates: Templates, base_seed: int, repeats: Repeats,
                 check_time: Callable[[], None]) -> None:  # fmt: skip
        self._mode = mode
        self._check_time = check_time
        self._templates = templates
        self._base_seed = base_seed
        self._repeats = repeats

    def num(self, values: Mapping[str, object]) -> int:
        """How many there are for each image of ``count``; exact below ``MOST``. Raises SpecError as ``drawn`` does."""
        if self._mode is not TemplateMode.ALL:
            return 1
        return min(MOST, prod(offer.num_texts for offer in self._offers(values).values()))

    def drawn(self, row: RowValues, count: int) -> Iterator[Drawing]:
        """The drawings of a row.

        Raises:
            SpecError: before the first drawing, with what is wrong with each template.
        """
        offers = self._offers(row.values) if self._mode else {}
        recorded = {f"{META_PREFIX}{name}": str(row.values[name]) for name in offers}
        if not offers:
            yield Drawing(row.own, row.defaults, range(count))
        elif self._mode is TemplateMode.ALL:
            for texts in _combinations(offers):
                self._check_time()
                yield Drawing(*row.replaced(texts), range(count), recorded)
        else:
            for copy in range(count):
                self._check_time()
                seed = self._seed(row.values)
                rand = Random(seed)  # noqa: S311 it chooses words
                texts = {name: offer.drawn(rand) for name, offer in offers.items()}
                yield Drawing(*row.replaced(texts), range(copy, copy + 1), {**recorded, META_SEED: str(seed)})

    def flaws(self, values: Mapping[str, object]) -> list[FieldProblem]:
        """What is wrong with the templates among these values."""
        return self._read(values)[1] if self._mode else []

    def _offers(self, values: Mapping[str, object]) -> dict[str, Offer]:
        """What each template of a row offers."""
        found, problems = self._read(values)
        if problems:
            raise SpecError("; ".join(f"{problem.field}: {problem.reason}" for problem in problems), problems)
        return found

    def _read(self, values: Mapping[str, object]) -> tuple[dict[str, Offer], list[FieldProblem]]:
        self._check_time()
        found: dict[str, Offer] = {}
        problems = []
        for name in TEMPLATE_FIELDS:
            text = values.get(name)
            if not isinstance(text, str) or not is_template(text):
                continue
            try:
                found[name] = self._templates.offer(text)
            except TemplateError as error:
                problems.append(FieldProblem(name, text, str(error)))
        return found, problems

    def _seed(self, values: Mapping[str, object]) -> int:
        """The first 8 bytes of sha256 over base seed, row and how often it was drawn before. ``output`` has no part."""
        row = {name: _as_text(value) for name, value in values.items() if not name.startswith("output.")}
        num_before = self._repeats.num_before(sha256_hex(f"drawing:{canonical_json(row)}"))
        content = canonical_json({"base_seed": str(self._base_seed), "repeat": num_before, "row": row})
        return int.from_bytes(hashlib.sha256(content.encode()).digest()[:8], "big")


def _combinations(offers: Mapping[str, Offer]) -> Iterator[dict[str, str]]:
    """A text for each field; the last field changes first."""
    (name, offer), *others = offers.items()
    for text in offer.texts():
        if others:
            yield from ({name: text, **more} for more in _combinations(dict(others)))
        else:
            yield {name: text}


def _as_text(value: object) -> str:
    """A TSV's ``30`` and JSON's are one value."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
