"""Text that is drawn into pictures: cut, wrapped, and without the characters that Pillow's built-in font lacks."""

import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final

from PIL import ImageFont

ELLIPSIS: Final = "…"

_MAX_CHARACTERS: Final = 600  # of a text that is measured; no sheet shows so many
_LOOKALIKES: Final = str.maketrans(
    {"×": "x", "\u2010": "-", "\u2011": "-", "\u2012": "-", "\u2013": "-", "\u2014": "-", "\u2212": "-", "\u00b7": "-",
     "ß": "ss", "æ": "ae", "Æ": "AE", "ø": "o", "Ø": "O", "œ": "oe", "ł": "l", "Ł": "L", "đ": "d", "ð": "d", "þ": "th",
     "\u201e": '"', "\u201a": "'"}
)  # fmt: skip


@dataclass(frozen=True)
class Typeface:
    """Pillow's built-in font in one size. Sizes are pixels."""

    size: int
    line_height: int

    @cached_property
    def font(self) -> ImageFont.FreeTypeFont:
        font = ImageFont.load_default(self.size)
        if not isinstance(font, ImageFont.FreeTypeFont):  # a Pillow without FreeType has only a bitmap of one size
            raise OSError("this Pillow has no FreeType; install one of Pillow's own wheels")
        return font

    def width(self, text: str) -> float:
        """Pixels from the text's start to its end."""
        return self.font.getlength(text)


def drawable(text: str) -> str:
    """The text as the font can show it, on one line.

    Control characters and direction marks are left out; accents and look-alikes become plain letters; a run of what is
    left that the font lacks becomes an ellipsis.
    """
    spaced = re.sub(r"\s+", " ", text[:_MAX_CHARACTERS].translate(_LOOKALIKES)).strip()
    visible = "".join(c for c in spaced if unicodedata.category(c) not in {"Cc", "Cf", "Cs"})
    plain = "".join(_plain(c) for c in unicodedata.normalize("NFC", visible))
    return re.sub(f"{ELLIPSIS}[{ELLIPSIS} ]*{ELLIPSIS}", ELLIPSIS, plain)


def _plain(character: str) -> str:
    if _has_glyph(character):
        return character
    parts = unicodedata.normalize("NFKD", character)
    letters = "".join(part for part in parts if unicodedata.category(part) != "Mn")
    if not letters and parts:
        return ""  # an accent or a variation selector on its own
    return letters if all(map(_has_glyph, letters)) else ELLIPSIS


@lru_cache(maxsize=4096)
def _has_glyph(character: str) -> bool:
    """Whether the font draws the character otherwise than one that no font has."""
    font = _PROBE.font
    missing, found = font.getmask("\uffff"), font.getmask(character)
    return found.size != missing.size or bytes(found) != bytes(missing)


_PROBE: Final = Typeface(size=24, line_height=30)


def cut_line(text: str, face: Typeface, width: float) -> str:
    """The text on one line of ``width`` pixels, with an ellipsis where it is too long."""
    line = drawable(text)
    if face.width(line) <= width and len(text) <= _MAX_CHARACTERS:
        return line
    return _with_ellipsis(line, face, width)


def wrapped(text: str, face: Typeface, width: float, max_lines: int) -> list[str]:
    """The text in at most ``max_lines`` lines of ``width`` pixels; the last one ends in an ellipsis if text is left."""
    words = drawable(text).split()
    lines: list[str] = []
    while words and len(lines) < max_lines:
        line, words = _next_line(words, face, width)
        lines.append(line)
    if words or (lines and len(text) > _MAX_CHARACTERS):
        lines[-1] = _with_ellipsis(lines[-1], face, width)
    return lines


def _next_line(words: list[str], face: Typeface, width: float) -> tuple[str, list[str]]:
    """As many words as fit, and the rest; a word that is too long for any line is broken."""
    num = 1
    while num < len(words) and face.width(" ".join(words[: num + 1])) <= width:
        num += 1
    line = " ".join(words[:num])
    if face.width(line) <= width:
        return line, words[num:]
    fitting = _fitting(line, face, width)
    return line[:fitting], [line[fitting:], *words[1:]]


def _with_ellipsis(line: str, face: Typeface, width: float) -> str:
    fitting = _fitting(line, face, width - face.width(ELLIPSIS))
    return line[:fitting].rstrip(f" ,.;:{ELLIPSIS}") + ELLIPSIS


def _fitting(line: str, face: Typeface, width: float) -> int:
    """How many characters of the line fit, but at least one, so that there is always progress."""
    num = len(line)
    while num > 1 and face.width(line[:num]) > width:
        num -= 1
    return num
