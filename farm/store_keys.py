"""What may lie in an image store, told by its key (its path below the store's URL) alone. Nothing is read.

==========  =============================================================  ==========================================
image       ``ab/cd/abcd….png``                                            ``ImageStore.put``; the digits are its sha256
input       ``inputs/ab/cd/abcd….safetensors``                             ``farm.inputs.InputStore``; likewise
thumbnail   ``thumbnails/ab/cd/abcd….webp``                                ``farm.thumbnails``; digits: its image's
leftover    ``ab/cd/.abcd….png.0123abcd.tmp``, ``.probe-0123456789abcdef``  of a process that died while it wrote
foreign     anything else                                                  a stranger's
==========  =============================================================  ==========================================
"""

import re
from dataclasses import dataclass
from typing import Final, Literal

_CONTENT: Final = r"([0-9a-f]{2})/([0-9a-f]{2})/(\1\2[0-9a-f]{60})"
_IMAGE: Final = re.compile(rf"{_CONTENT}\.(?:png|webp|jpg)")
_INPUT: Final = re.compile(rf"inputs/{_CONTENT}\.(?:png|webp|jpg|safetensors)")
_THUMBNAIL: Final = re.compile(rf"thumbnails/{_CONTENT}\.webp")
_PROBE: Final = re.compile(r"\.probe-[0-9a-f]{16}")
_TEMPORARY_NAME: Final = re.compile(r"\.(.+)\.[0-9a-f]{8}\.tmp")
_BRANCHES: Final = ("inputs", "thumbnails")
_FOLDER: Final = re.compile(
    rf"(?:{'|'.join(_BRANCHES)})|(?:(?:{'|'.join(_BRANCHES)})/)?[0-9a-f]{{2}}(?:/[0-9a-f]{{2}})?"
)


@dataclass(frozen=True)
class StoreKey:
    """``sha256``: of the content, as the key names it; of a thumbnail that of its image; None for what is neither."""

    kind: Literal["image", "input", "thumbnail", "leftover", "foreign"]
    sha256: str | None = None


def store_key(key: str) -> StoreKey:
    """What a file of this key is. Only what Nightshift itself could have named so is other than foreign."""
    if found := _IMAGE.fullmatch(key):
        return StoreKey("image", found[3])
    if found := _INPUT.fullmatch(key):
        return StoreKey("input", found[3])
    if found := _THUMBNAIL.fullmatch(key):
        return StoreKey("thumbnail", found[3])
    return StoreKey("leftover" if _is_leftover(key) else "foreign")


def is_branch(key: str) -> bool:
    """Whether folders of this key hold files in folders as the store itself does: ``inputs``, ``thumbnails``."""
    return key in _BRANCHES


def is_folder_of_ours(key: str) -> bool:
    """Whether Nightshift makes folders of this key; nothing of its own lies in others."""
    return _FOLDER.fullmatch(key) is not None


def _is_leftover(key: str) -> bool:
    folder, _, name = key.rpartition("/")
    temporary = _TEMPORARY_NAME.fullmatch(name)
    whole = f"{folder}/{temporary[1]}".lstrip("/") if temporary else key
    is_content = any(kind.fullmatch(whole) for kind in (_IMAGE, _INPUT, _THUMBNAIL))
    return bool(_PROBE.fullmatch(whole) or (temporary and is_content))
