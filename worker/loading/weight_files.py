"""Which files of a model's folder hold its weights, and whether they are what they say, before any of them is read."""

import json
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import Final

from farm.safetensors_header import tensor_names
from schemas.pair import SAFETENSORS

_INDEX: Final = ".index.json"


def weight_files(folder: Path, variant: str | None) -> list[Path]:
    """The safetensors files that diffusers reads from a part's folder: those of the variant, where there are any."""
    files = sorted(path for path in folder.iterdir() if path.suffix == SAFETENSORS)
    if has_variant(folder, variant):
        return [path for path in files if _is_of(path, variant)]
    return [path for path in files if path.name.count(".") == 1]


def has_variant(folder: Path, variant: str | None) -> bool:
    return variant is not None and any(_is_of(path, variant) for path in folder.iterdir() if path.suffix == SAFETENSORS)


def require_honest_folder(folder: Path, parts: Iterable[str], variant: str | None) -> None:
    """Looks through the parts that are there. Raises as ``require_honest_file``, and ValueError for an index that names
    other files than those beside it.
    """
    for part in (folder / name for name in parts if (folder / name).is_dir()):
        for index in part.glob(f"*{_INDEX}"):
            _require_beside(index)
        for file in weight_files(part, variant):
            require_honest_file(file)


def require_honest_file(file: Path) -> None:
    """Raises ValueError where it is no safetensors, is cut off, or its header lies; OSError."""
    names = tensor_names(file)
    if isinstance(names, str):
        raise ValueError(f"{file.parent.name}/{file.name} {names}")


def _require_beside(index: Path) -> None:
    """Diffusers reads a shard wherever its index says, and by another loader where it ends otherwise."""
    content = json.loads(index.read_text(encoding="utf-8"))
    shards = content.get("weight_map") if isinstance(content, dict) else None
    for shard in set(shards.values()) if isinstance(shards, dict) else {None}:
        if not isinstance(shard, str) or PurePath(shard).name != shard or not shard.endswith(SAFETENSORS):
            raise ValueError(
                f"{index.parent.name}/{index.name} names a shard {shard!r:.100}, which is no file beside it"
            )


def _is_of(path: Path, variant: str) -> bool:
    return path.name.split(".")[1].startswith(variant)  # diffusers' own rule
