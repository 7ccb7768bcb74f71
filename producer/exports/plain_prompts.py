"""Prompts in compel's syntax as the plain text that a caption should be: without weights, calls and brackets."""

import re
from typing import Final

_ESCAPED: Final = re.compile(r"\\([()\",.+=-])")
_LORA: Final = re.compile(r"\b(?:use|with)Lora\([^()]*\)")
_CALL: Final = re.compile(r"\.(?:attend|and|add|blend|swap)\([^()]*\)")
_WEIGHT_OF_GROUP: Final = re.compile(r"(?<=[)\"])(?:\++|-+|-?(?:\d+\.?\d*|\.\d+))")
_WEIGHT_OF_WORD: Final = re.compile(r"(?<=\w)(?:\++|-+)(?=[\s,.()\"]|$)")
_BRACKETS: Final = re.compile(r"[()\"]")
#: where escaped characters wait: no prompt means anything by the plane's private characters
_PRIVATE: Final = 0xF0000


def without_weights(prompt: str) -> str:
    """``a (red)1.3 fox++, "at night"-`` is ``a red fox, at night``. An escaped bracket is a bracket."""
    text = _ESCAPED.sub(lambda found: chr(_PRIVATE + ord(found[1])), prompt)
    for pattern in (_LORA, _CALL, _WEIGHT_OF_GROUP, _WEIGHT_OF_WORD, _BRACKETS):
        text = pattern.sub("", text)
    text = re.sub(r" +(?=[,.](?:\s|$))", "", " ".join(text.split()))
    return "".join(chr(ord(c) - _PRIVATE) if _PRIVATE <= ord(c) < _PRIVATE + 128 else c for c in text)
