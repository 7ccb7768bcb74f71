"""Wildcards: text files in a folder, a value a line. Templates name them by path, without suffix: ``__animals/cats__``.

Reads the folder and nothing beside it: a name or a link that leads out is refused.
"""

import os
from collections.abc import Iterator
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Final

from producer.manifests.inputs import offered_file
from producer.manifests.lines import read_lines
from producer.manifests.rows import shown_value
from schemas.errors import InputError, InputFileError, TemplateError
from schemas.printable import printable

SUFFIX: Final = ".txt"

_MAX_BYTES: Final = 10_000_000
_MAX_FILES: Final = 100_000
_SHOWN_NAMES: Final = 5


class Wildcards:
    """The wildcards of a folder. Without a folder there are none."""

    def __init__(self, folder: Path | None) -> None:
        if folder is not None and not folder.is_dir():
            raise InputError(f"--wildcards {printable(str(folder))}: there is no such folder")
        self._folder = folder

    def values(self, name: str) -> tuple[str, ...]:
        """The lines of the file, or of all files that a name with ``*`` or ``?`` fits; each value once.

        Blank lines, and those that begin with ``#``, are none.

        Raises:
            TemplateError: there is no such wildcard, it has no values, or a file is not UTF-8 or too large.
        """
        if self._folder is None:
            raise TemplateError(f"names the wildcard {shown_value(name)}, and there is no folder of them (--wildcards)")
        names = [found for found in self._names if fnmatchcase(found, name)] if set("*?") & set(name) else [name]
        found = dict.fromkeys(value for one in names for value in self._lines(self._folder, one))
        if not names:
            raise TemplateError(self._unknown(self._folder, name))
        if not found:
            raise TemplateError(f"names the wildcard {shown_value(name)}, which has no values")
        return tuple(found)

    @cached_property
    def _names(self) -> list[str]:
        """Of all files in the folder and below, sorted. Linked folders are not looked into."""
        files = (
            os.path.relpath(os.path.join(parent, file), self._folder)
            for parent, _, files in os.walk(self._folder or "")
            for file in files
            if file.endswith(SUFFIX)
        )
        found = sorted(file.removesuffix(SUFFIX).replace(os.sep, "/") for file in islice(files, _MAX_FILES + 1))
        if len(found) > _MAX_FILES:
            raise InputError(f"--wildcards {printable(str(self._folder))}: has more than {_MAX_FILES:,} files")
        return found

    def _lines(self, folder: Path, name: str) -> Iterator[str]:
        try:
            path = offered_file(folder, f"{name}{SUFFIX}")
        except InputFileError as error:
            if name in self._names or "no such file" not in str(error):
                raise TemplateError(f"names the wildcard {shown_value(name)}, which {error}") from None
            raise TemplateError(self._unknown(folder, name)) from None
        try:
            yield from _values_of(path, name)
        except OSError as error:
            raise TemplateError(
                f"names the wildcard {shown_value(name)}, which cannot be read: {error.strerror}"
            ) from None

    def _unknown(self, folder: Path, name: str) -> str:
        last = name.rpartition("/")[2]
        alike = [known for known in self._names if known.rpartition("/")[2].lower() == last.lower()]
        close = dict.fromkeys([*alike, *get_close_matches(name, self._names, _SHOWN_NAMES)])
        shown = ", ".join(shown_value(known) for known in islice(close, _SHOWN_NAMES))
        hint = f"; similar ones are {shown}" if shown else ""
        return f"names the wildcard {shown_value(name)}, and {printable(str(folder))} has no such file{hint}"


def _values_of(path: Path, name: str) -> Iterator[str]:
    if path.stat().st_size > _MAX_BYTES:
        raise TemplateError(f"names the wildcard {shown_value(name)}, whose file has more than {_MAX_BYTES:,} bytes")
    with open(path, "rb") as file:
        for number, text, flaw in read_lines(file):
            if flaw:
                raise TemplateError(f"names the wildcard {shown_value(name)}, whose line {number} {flaw}")
            value = text.strip()
            if value and not value.startswith("#"):
                yield value
