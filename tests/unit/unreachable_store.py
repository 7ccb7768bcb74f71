"""A store as s3fs is where nobody answers: its errors are botocore's, and no OSError."""

import sys
from types import ModuleType
from typing import NoReturn

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem


class BotoCoreError(Exception):
    """As botocore has it: no OSError."""


class _Unreachable(MemoryFileSystem):
    protocol = "unreachable"

    def ls(self, path: str, detail: bool = True, **_options: object) -> NoReturn:
        raise BotoCoreError("could not connect to the endpoint")

    def open(self, path: str, *_args: object, **_options: object) -> NoReturn:
        self.ls(path)

    def pipe_file(self, path: str, *_args: object, **_options: object) -> NoReturn:
        self.ls(path)


@pytest.fixture
def unreachable_store(monkeypatch: pytest.MonkeyPatch) -> str:
    """Its URL."""
    exceptions = ModuleType("botocore.exceptions")
    exceptions.BotoCoreError = BotoCoreError  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "botocore.exceptions", exceptions)
    fsspec.register_implementation("unreachable", _Unreachable, clobber=True)
    return "unreachable://images"
