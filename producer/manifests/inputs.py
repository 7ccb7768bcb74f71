"""Inputs that manifests name: pictures and LoRAs in the operator's folders, found, checked, and stored by content.

Reads ``input_folder`` and ``lora_folder`` and nothing beside them; writes ``inputs/`` of the image store.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Final

from farm.file_digests import file_sha256
from farm.image_store import read_image
from farm.init_image import decoded_picture, picture_header
from farm.inputs import InputStore
from producer.manifests.lora_file import lora_flaw
from producer.manifests.lora_list import lora_items
from schemas.errors import FieldProblem, InputFileError
from schemas.printable import shown
from schemas.settings import Settings
from schemas.spec import JobSpec

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
#: stands for a picture that was refused, so that the row's other fields are judged beside one
_SOME_SHA256: Final = "0" * 64
_MAX_IMAGE_BYTES: Final = 200_000_000
_REMEMBERED: Final = 4096
#: no name of a file that anybody offers: a newline would forge lines of what quotes it
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Picture:
    """An init image in the store. Width and height in pixels, upright."""

    sha256: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class ResolvedInputs:
    """``fields``: what takes the place of the row's names, which are ``given``."""

    fields: Mapping[str, object] = field(default_factory=dict)
    problems: tuple[FieldProblem, ...] = ()
    given: Mapping[str, object] = field(default_factory=dict)
    picture: Picture | None = None
    #: width and height are the picture's, for the row names neither
    gives_size: bool = False

    def explained(self, problem: FieldProblem) -> FieldProblem:
        """A problem of what was resolved, told of what the row says."""
        part, _, rest = problem.field.partition(".")
        if self.picture and self.gives_size and part in ("width", "height"):
            size = f"is {self.picture.width} x {self.picture.height} pixels, and its {part}"
            return FieldProblem("init_image", self.given["init_image"], f"{size} {problem.reason}")
        if part == "loras" and self.given:
            number, _, name = rest.partition(".")
            where = [f"number {int(number) + 1}", name] if number else []
            value = [shown(problem.value)] if number and problem.value is not None else []
            return FieldProblem("loras", self.given["loras"], ": ".join([*where, *value, problem.reason]))
        return problem

    def problems_of(self, spec: JobSpec) -> list[FieldProblem]:
        """What is wrong with the inputs beside the spec: the picture is never scaled without a word."""
        picture = self.picture
        if picture is None or (picture.width, picture.height) == (spec.width, spec.height):
            return []
        reason = (
            f"is {picture.width} x {picture.height} pixels, and the row's image {spec.width} x {spec.height};"
            " scale it, or leave width and height out"
        )
        return [FieldProblem("init_image", self.given["init_image"], reason, ("width", "height"))]


NO_INPUTS: Final = ResolvedInputs()


class Inputs:
    """Finds inputs by name, once for each name, and stores them. Not for several threads.

    ``stores``: False only looks at them, with the same care, and leaves the image store as it is.
    """

    def __init__(self, settings: Settings, *, stores: bool = True) -> None:
        self._stores = stores
        self._input_folder = Path(settings.input_folder)
        self._lora_folder = Path(settings.lora_folder)
        self._cache = settings.home / "cache"
        self._store = InputStore(settings.images_url)
        self._picture: Callable[[str], Picture | str] = lru_cache(_REMEMBERED)(self._find_picture)
        self._lora: Callable[[str], tuple[str, str | None]] = lru_cache(_REMEMBERED)(self._find_lora)

    def resolve(self, values: Mapping[str, object]) -> ResolvedInputs:
        """The values of a row, under the names of ``producer.manifests.columns.FIELDS``.

        Raises:
            StorageError: the image store refuses or does not answer.
        """
        given = {name: values[name] for name in ("init_image", "loras") if name in values}
        fields: dict[str, object] = {}
        problems: list[FieldProblem] = []
        if "loras" in values:
            fields["loras"], problems = self._loras(values["loras"])
        picture = self._picture_of(values["init_image"]) if "init_image" in values else None
        if isinstance(picture, str):
            problems.append(FieldProblem("init_image", values["init_image"], picture))
            fields["init_image"] = _SOME_SHA256
            picture = None
        if picture is None:
            return ResolvedInputs(fields, tuple(problems), given)
        fields["init_image"] = picture.sha256
        gives_size = not {"width", "height", "aspect_ratio"} & values.keys()
        if gives_size:
            fields |= {"width": picture.width, "height": picture.height}
        return ResolvedInputs(fields, tuple(problems), given, picture, gives_size)

    def _picture_of(self, name: object) -> Picture | str:
        return self._picture(name) if isinstance(name, str) else "should be a path in the input folder, or a sha256"

    def _find_picture(self, name: str) -> Picture | str:
        try:
            return self._stored_picture(name) if _SHA256.fullmatch(name) or "://" in name else self._own_picture(name)
        except InputFileError as error:
            return str(error)

    def _stored_picture(self, name: str) -> Picture:
        sha256 = self._store.image_sha256(name) if "://" in name else name
        uri = self._store.find_image(sha256) if sha256 else None
        if sha256 is None or uri is None:
            raise InputFileError("is no picture of the image store")
        content = read_image(uri)
        if hashlib.sha256(content).hexdigest() != sha256:
            raise InputFileError("is broken in the image store: its bytes are not those of its name")
        decoded_picture(content)
        return Picture(sha256, *picture_header(content)[1])

    def _own_picture(self, name: str) -> Picture:
        content = _content(offered_file(self._input_folder, name))
        sha256 = hashlib.sha256(content).hexdigest()
        suffix, size = picture_header(content)
        if self._store.find_image(sha256, [suffix]) is None:
            decoded_picture(content)  # what is stored has been decoded once
            if self._stores:
                self._store.put_image(content, sha256, suffix)
        return Picture(sha256, *size)

    def _loras(self, given: object) -> tuple[list[dict[str, object]], list[FieldProblem]]:
        """The LoRAs with their content hashes; none of them where one cannot be found."""
        items = lora_items(given)
        if isinstance(items, str):
            return [], [FieldProblem("loras", given, items)]
        found = [self._with_sha256(item) for item in items]
        reasons = [reason for reason in found if isinstance(reason, str)]
        loras = [] if reasons else [lora for lora in found if not isinstance(lora, str)]
        return loras, [FieldProblem("loras", given, reason) for reason in reasons]

    def _with_sha256(self, item: dict[str, object]) -> dict[str, object] | str:
        name = str(item["name"])
        sha256, flaw = self._lora(name)
        if flaw is not None:
            return f"{name}: {flaw}"
        if item.get("sha256", sha256) != sha256:
            return f"{name}: its file has the sha256 {sha256}, not {item['sha256']!r}"
        return {**item, "sha256": sha256}

    def _find_lora(self, name: str) -> tuple[str, str | None]:
        """The sha256, and a flaw where it has one."""
        try:
            path = offered_file(self._lora_folder, f"{name}.safetensors")
            if flaw := lora_flaw(path):
                return "", flaw
            sha256 = file_sha256(path, self._cache)
            if self._stores and self._store.find_lora(sha256) is None:
                self._store.put_lora(path, sha256)
        except InputFileError as error:
            return "", str(error)
        except OSError as error:
            return "", f"its file cannot be read: {error.strerror or error}"
        return sha256, None


def offered_file(folder: Path, name: str) -> Path:
    """The regular file of this name in the folder or below.

    Raises:
        InputFileError: the name leads out of the folder, also by a link; or there is no such file in it. Nothing
            outside is opened, and the message is the same whatever lies there.
    """
    outside = InputFileError(f"does not lie in {folder}")
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise outside
    try:
        inside, path = folder.resolve(), (folder / name).resolve()
        if not path.is_relative_to(inside):
            raise outside
        if path.is_file() and not _CONTROL.search(name):
            return path
    except (OSError, ValueError, RuntimeError):  # a loop of links, no right to look, a NUL, half a surrogate pair
        pass
    raise InputFileError(f"there is no such file in {folder}")


def _content(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MAX_IMAGE_BYTES:
            raise InputFileError(f"has more than {_MAX_IMAGE_BYTES:,} bytes")
        return path.read_bytes()
    except OSError as error:
        raise InputFileError(f"cannot be read: {error.strerror or error}") from None
