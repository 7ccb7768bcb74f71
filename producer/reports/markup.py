"""Text of strangers as HTML: escaped, on one line, and rid of what cannot be seen but does harm."""

import unicodedata
from html import escape
from typing import Final

#: embeddings, overrides and isolates of the writing direction: they reach past the text that they stand in
_DIRECTIONS: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def as_html(text: str) -> str:
    """As HTML, also within double quotes; spaces for what separates, nothing for controls and direction overrides."""
    spaced = " ".join(text.split())
    return escape("".join(c for c in spaced if unicodedata.category(c) not in ("Cc", "Cs") and c not in _DIRECTIONS))


def cut(text: str, num_characters: int) -> str:
    """The text, or its beginning with ``…``."""
    return text if len(text) <= num_characters else f"{text[: num_characters - 1].rstrip()}…"
