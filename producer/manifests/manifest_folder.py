"""A folder as a manifest: the files of a Hugging Face dataset, or one manifest in several files.

Looked for are ``metadata.jsonl`` (``.csv``, ``.parquet``) beside pictures, as imagefolder has it; else files of one
format in the folder, or in its ``data``, where the hub keeps ``train-00000-of-00003.parquet``.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from producer.manifests.manifest_file import ManifestFile, said_of
from producer.manifests.manifest_format import PARQUET, told_format
from producer.manifests.manifest_source import STDIN, ManifestSource, Place, place_name, place_tail
from producer.manifests.remote_file import filesystem_of, is_http, said_of_url
from schemas.errors import ManifestError
from schemas.printable import printable

_METADATA: Final = frozenset({"metadata.jsonl", "metadata.csv", "metadata.parquet"})
#: no txt: a folder of pictures may have a caption in a file for each, and nearly every one has some README
_FORMATS: Final = frozenset({"tsv", "csv", "jsonl", PARQUET})
_DATA: Final = "data"
_SHARD: Final = re.compile(r"(?P<before>.*-)(?P<number>\d{5,})-of-(?P<count>\d{5,})(?P<behind>\..*)")
_MAX_SHARDS: Final = 100_000


def folder_files(source: ManifestSource) -> list[ManifestFile] | None:
    """The files of the manifest in the order of their names; None where the source is no folder.

    Raises:
        ManifestError: there is no manifest in the folder, or more than one, or not all of it.
        StorageError: the store of a URL does not answer.
    """
    if not _is_folder(source):
        return None
    for place in (source.place, _inside(source.place, _DATA)):
        if names := _manifest_names(place, source.format):
            _check_shards(place_name(place), names)
            return [ManifestFile(_inside(place, name), told_format(name, source.format)) for name in names]
    raise ManifestError(
        f"{source.name} is a folder in which no manifest is: no metadata.jsonl, .csv or .parquet, and no file of rows"
        " (.tsv, .csv, .jsonl, .parquet), nor in its folder data"
    )


def _is_folder(source: ManifestSource) -> bool:
    """A store is asked only where the URL looks like one: who may read a file need not have the right to list."""
    place = source.place
    if isinstance(place, Path):
        return place.is_dir()
    if place == STDIN or is_http(place):
        return False
    if not place.endswith("/") and told_format(place_tail(place), source.format).content is not None:
        return False
    with said_of_url(place):
        filesystem, path = filesystem_of(place)
        return bool(filesystem.isdir(path))


def _inside(place: Place, name: str) -> Place:
    return place / name if isinstance(place, Path) else f"{place.rstrip('/')}/{name}"


def _names(place: Place) -> list[str]:
    """Of the files in it, sorted; none where it is no folder."""
    if isinstance(place, Path):
        with said_of(place_name(place)):
            return sorted(file.name for file in place.iterdir() if file.is_file()) if place.is_dir() else []
    with said_of_url(place):
        filesystem, path = filesystem_of(place)
        try:
            entries = filesystem.ls(path, detail=True)
        except FileNotFoundError:
            return []
    return sorted(str(entry["name"]).rpartition("/")[2] for entry in entries if entry["type"] == "file")


def _manifest_names(place: Place, format_given: str | None) -> list[str]:
    names = [name for name in _names(place) if not name.startswith((".", "_"))]
    rows = [name for name in names if told_format(name, None).content in _FORMATS]
    if format_given is not None:
        rows = [name for name in rows if told_format(name, None).content == format_given]
    metadata = sorted(_METADATA.intersection(rows))
    kinds = {told_format(name, None).content: name for name in reversed(rows)}
    if len(metadata) > 1 or len(kinds) > 1 or (metadata and len(rows) > 1):
        found = sorted({*metadata, *kinds.values(), *rows[:2]})
        raise ManifestError(
            f"{place_name(place)} has {printable(', '.join(found))}: which is the manifest? name one of them;"
            " in a folder all files are of one format"
        )
    return rows


def _check_shards(folder: str, names: Iterable[str]) -> None:
    """Raises ManifestError where a shard is missing of those that the names of the others count."""
    found: dict[tuple[str, str, int], set[int]] = {}
    for name in names:
        if shard := _SHARD.fullmatch(name):
            of = (shard["before"], shard["behind"], int(shard["count"]))
            found.setdefault(of, set()).add(int(shard["number"]))
    for (before, behind, count), numbers in found.items():
        missing = next((n for n in range(min(count, _MAX_SHARDS)) if n not in numbers), None)
        if missing is not None:
            raise ManifestError(
                f"{folder} is not whole: there is no {printable(before)}{missing:05}-of-{count:05}{printable(behind)}"
            )
