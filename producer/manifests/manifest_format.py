"""What a manifest's name says is in it: ``prompts.jsonl.gz`` is JSONL, compressed by gzip."""

from dataclasses import dataclass
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Final

from producer.manifests.decompression import PLAIN

PARQUET: Final = "parquet"
TEXTS: Final = ("tsv", "csv", "jsonl", "txt")
FORMATS: Final = (*TEXTS, PARQUET)
#: suffix → how the file is compressed
COMPRESSIONS: Final = MappingProxyType({".gz": "gzip", ".zst": "zstd"})

_KNOWN: Final = f"manifests are {', '.join(f'.{name}' for name in FORMATS)}, texts also with .gz or .zst behind it"


@dataclass(frozen=True)
class ManifestFormat:
    """``content``: one of FORMATS; None where neither name nor option tells. ``compression``: gzip, zstd or plain, and
    the file must be so; None where its first bytes tell, because nothing else does."""

    content: str | None
    compression: str | None


def told_format(name: str, given: str | None) -> ManifestFormat:
    """By the name's suffixes; ``given``: by ``--format``, which only an own suffix of compression goes beside."""
    path = PurePosixPath(name)
    compression = COMPRESSIONS.get(path.suffix.lower())
    if given is not None:
        return ManifestFormat(given, compression)
    suffix = PurePosixPath(path.stem if compression else name).suffix.lower().removeprefix(".")
    return ManifestFormat(suffix if suffix in FORMATS else None, compression or PLAIN)


def unknown_format(name: str) -> str:
    """Why the name does not do, and what would; the end of a sentence that begins with the name."""
    suffix = PurePosixPath(name).suffix
    if suffix.lower() in COMPRESSIONS:
        return f'the name does not say what is in it; call it "….jsonl{suffix}", or say it: --format jsonl'
    return f'unknown suffix "{suffix}"; {_KNOWN}; or say the format: --format jsonl'


def without_suffixes(name: str) -> str:
    """``prompts`` of ``prompts.jsonl.gz``."""
    path = PurePosixPath(name)
    return PurePosixPath(path.stem).stem if path.suffix.lower() in COMPRESSIONS else path.stem
