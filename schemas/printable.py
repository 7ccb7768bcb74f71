"""Text for terminals: what a file or a database says must not move the cursor or hide itself."""


def printable(text: str) -> str:
    """The text with control characters, direction marks and surrogates escaped: it goes to a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
