"""What a batch may be called: it goes to terminals, into file names and into the ledger."""

import unicodedata
from typing import Final

from producer.manifests.manifest_source import ManifestSource
from schemas.fields import text_flaw

_MAX_CHARACTERS: Final = 200


def name_of_manifest(source: ManifestSource) -> str:
    """The name of a batch that was given none. A file may be called anything."""
    return source.stem[:_MAX_CHARACTERS]


def name_flaw(name: str) -> str | None:
    """Why no batch may be called so; None where one may."""
    if not name.strip():
        return "is empty; leave it out, and the batch is called as the manifest"
    if len(name) > _MAX_CHARACTERS:
        return f"has more than {_MAX_CHARACTERS} characters"
    if flaw := text_flaw(name):
        return flaw
    return "contains a control character" if any(unicodedata.category(c) == "Cc" for c in name) else None
