"""Text for terminals: what a file or a database says must not move the cursor, hide itself, or run on for ever."""

import json


def printable(text: str) -> str:
    """The text with control characters, direction marks and surrogates escaped: it goes to a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def json_printable(text: str) -> str:
    """The same of JSON on one line, which stays the same JSON: such characters stand in its strings alone."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def printable_start(text: str, max_characters: int) -> str:
    """The text, printable; of a longer one the first characters, and how many it has."""
    return printable(text) if len(text) <= max_characters else _start(text, max_characters, len(text))


def _start(text: str, max_characters: int, num_characters: int) -> str:
    return f"{printable(text[: max_characters - 3])}... ({num_characters} characters)"


def shown(value: object, max_characters: int = 60) -> str:
    """The value as Python writes it, of bounded length.

    What Python refuses to write (a number of 5,000 digits, lists in lists without end) is named by its type.
    """
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        return f"a value of type {type(value).__name__} that is too long to show"
    if len(text) <= max_characters:
        return printable(text)
    return _start(text, max_characters, len(value) if isinstance(value, str) else len(text))
