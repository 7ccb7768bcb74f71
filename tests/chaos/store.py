"""The image store of a chaos run: a folder that can be taken away, and what lies in it, by its own listing."""

import hashlib
import os
from pathlib import Path


class Store:
    """``url`` names a link to the folder, so that one rename puts something else in its place."""

    def __init__(self, home: Path) -> None:
        self._folder = home / "images.folder"
        self._folder.mkdir()
        self._link = home / "images"
        self._in_the_way = home / "no-folder"
        self._in_the_way.touch()
        self.url = self._link.as_uri()
        self._checked: set[Path] = set()
        self.mend()

    def refuse(self) -> None:
        """From now on nothing can be read from it or written to it."""
        self._point_to(self._in_the_way)

    def mend(self) -> None:
        self._point_to(self._folder)

    def images(self) -> list[Path]:
        """Files under their final names."""
        return [path for path in self._files() if not path.name.startswith(".")]

    def temporary_files(self) -> list[Path]:
        return [path for path in self._files() if path.name.startswith(".")]

    def torn(self) -> list[Path]:
        """Files whose bytes are not those that their names promise. Each is looked at until it was found whole."""
        new = [path for path in self.images() if path not in self._checked]
        torn = [path for path in new if hashlib.sha256(path.read_bytes()).hexdigest() != path.name.split(".")[0]]
        self._checked |= {*new} - {*torn}
        return torn

    def path_of(self, uri: str) -> Path:
        assert uri.startswith(self.url), uri
        return self._folder / uri.removeprefix(f"{self.url}/")

    def _files(self) -> list[Path]:
        return [Path(folder, name) for folder, _, names in os.walk(self._folder) for name in names]

    def _point_to(self, target: Path) -> None:
        new = self._link.with_name("images.new")
        new.symlink_to(target)
        new.rename(self._link)
