"""Captions: the text beside an image that a model is trained with. One line, never empty."""

import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from producer.exports.exported_fields import KINDS, META, Value
from producer.exports.plain_prompts import without_weights
from producer.manifests.columns import normal_name
from schemas.errors import InputError
from schemas.printable import shown

#: whose weights are no words
PROMPTS: Final = frozenset(
    {"prompt", "prompt_2", "negative_prompt", "negative_prompt_2", "refiner.prompt", "refiner.negative_prompt"}
)


@dataclass(frozen=True)
class Caption:
    """A template such as ``{prompt}, {meta.style}`` taken apart: texts, and the names of columns between them."""

    parts: tuple[tuple[str, str | None], ...]
    keeps_weights: bool

    @classmethod
    def parse(cls, text: str, *, keeps_weights: bool) -> Self:
        """``text``: a template, or the name of one column.

        Raises:
            InputError: the template cannot be read, names nothing, or names a column that there is none of.
        """
        template = text if "{" in text or "}" in text else f"{{{text}}}"
        try:
            pieces = list(string.Formatter().parse(template))
        except ValueError as error:
            raise InputError(
                f"--caption {shown(text)} cannot be read: {error}; a brace itself is {{{{ or }}}}"
            ) from None
        parts = tuple((literal, None if name is None else _column(name, text)) for literal, name, _, _ in pieces)
        if any(spec or conversion for _, _, spec, conversion in pieces):
            raise InputError(f"--caption {shown(text)}: only names stand in braces, and nothing behind them")
        if not any(name for _, name in parts):
            raise InputError(f"--caption {shown(text)} names no column, so every image would have the same caption")
        return cls(parts, keeps_weights)

    @property
    def columns(self) -> frozenset[str]:
        return frozenset(name for _, name in self.parts if name is not None)

    def of(self, values: Mapping[str, Value], meta: Mapping[str, str]) -> str:
        """On one line. Raises InputError where nothing is left, with the job's name."""
        text = "".join([literal + (self._value(name, values, meta) if name else "") for literal, name in self.parts])
        line = " ".join(text.split())
        if not line:
            names = " and ".join(sorted(self.columns))
            raise InputError(f"job {values['job']} has no caption: its {names} is empty; --where can leave it out")
        return line

    def _value(self, name: str, values: Mapping[str, Value], meta: Mapping[str, str]) -> str:
        value: Any = meta_value(meta, name) if name.startswith(META) else values[name]
        text = "" if value is None else str(value)
        is_weighted = name in PROMPTS and values["prompt_syntax"] == "compel" and not self.keeps_weights
        return without_weights(text) if is_weighted else text


def _column(name: str, text: str) -> str:
    column = name.strip() if name.startswith(META) else normal_name(name)
    if column.startswith(META) and column != META:
        return column
    if column not in KINDS:
        raise InputError(f"--caption {shown(text)}: there is no column {shown(name)}; {known_columns()}")
    return column


def known_columns() -> str:
    """The end of a sentence about a column that is none."""
    return f"columns are {', '.join(name for name in KINDS if name != 'spec')} and meta.NAME of the manifest's own"


def meta_value(meta: Mapping[str, str], column: str) -> str | None:
    """``meta.Art Style`` as manifests name it, else by its normal name (``meta.art_style``)."""
    name = column.removeprefix(META)
    if name in meta:
        return meta[name]
    wanted = normal_name(name)
    return next((value for found, value in meta.items() if normal_name(found) == wanted), None)
