"""Where a manifest comes from: what somebody typed, and how it may be said and what its batch is called.

Only this is ever opened as a URL. Values inside rows have rules of their own.
"""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, Self
from urllib.parse import unquote, urlsplit

from producer.manifests.manifest_format import FORMATS, without_suffixes
from schemas.errors import ManifestError
from schemas.printable import printable
from schemas.safe_url import safe_url

STDIN: Final = "-"

_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")

#: a path of this machine, a URL, or ``STDIN``
Place = Path | str


@dataclass(frozen=True)
class ManifestSource:
    """``format``: what ``--format`` says is in it; None lets the name tell."""

    place: Place
    format: str | None = None

    @classmethod
    def parse(cls, typed: str, format_given: str | None = None) -> Self:
        """What was typed: ``-`` is standard input, ``scheme://...`` a URL, anything else a path.

        Raises:
            ManifestError: no such format, standard input without one, or a URL inside another.
        """
        if format_given is not None and format_given not in FORMATS:
            raise ManifestError(f"--format {printable(format_given)}: formats are {', '.join(FORMATS)}")
        if typed == STDIN:
            if format_given is None:
                raise ManifestError("standard input has no name that tells its format; say it: --format jsonl")
            return cls(STDIN, format_given)
        if "::" in typed and "://" in typed:
            raise ManifestError("a URL inside another (::) is not read; give the manifest's own")
        if not _URL.match(typed):
            return cls(Path(typed), format_given)
        parts = urlsplit(typed) if typed.lower().startswith("file://") else None
        return cls(Path(unquote(parts.path)) if parts else typed, format_given)

    @classmethod
    def of(cls, manifest: "Path | ManifestSource") -> "ManifestSource":
        """A path is always one of this machine."""
        return cls(manifest) if isinstance(manifest, Path) else manifest

    @property
    def name(self) -> str:
        """Fit for a sentence: printable, and a URL without its secrets."""
        return place_name(self.place)

    @property
    def stem(self) -> str:
        """What the batch is called when nobody says: ``prompts`` for ``s3://bucket/prompts.jsonl.gz``. Printable."""
        if self.place == STDIN:
            return "stdin"
        if isinstance(self.place, Path):
            return printable(without_suffixes(self.place.name or self.place.resolve().name))
        parts = urlsplit(safe_url(self.place))
        return printable(without_suffixes(place_tail(self.place)) or parts.netloc or parts.scheme)


def place_name(place: Place) -> str:
    if place == STDIN:
        return "standard input"
    return printable(str(place) if isinstance(place, Path) else safe_url(place))


def place_tail(place: Place) -> str:
    """The last part of it, whose suffixes tell the format: ``prompts.jsonl.gz``. As it is, not printable."""
    if isinstance(place, Path):
        return place.name
    return PurePosixPath(unquote(urlsplit(safe_url(place)).path)).name
