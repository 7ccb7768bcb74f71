"""Reads a manifest in a process of its own, to see how much memory that takes."""

from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from pathlib import Path

from producer.manifests.manifest import ReadOptions, read_manifest
from tests.peak_memory import peak_bytes

#: of a manifest the megabytes that reading it took beyond what the process had before, and the first that it gave
ReadApart = Callable[[Path], tuple[int, list[str]]]
_WAIT_SECONDS = 100.0


def read_apart_by(processes: BaseContext) -> ReadApart:
    def read(path: Path) -> tuple[int, list[str]]:
        told, teller = processes.Pipe(duplex=False)
        process = processes.Process(target=_tell, args=(path, teller))  # type: ignore[attr-defined]
        process.start()
        teller.close()
        assert told.poll(_WAIT_SECONDS), f"{path} takes for ever"
        found: tuple[int, list[str]] = told.recv()
        process.join()
        return found

    return read


def _tell(path: Path, teller: Connection) -> None:
    before = peak_bytes()
    try:
        found = [f"{type(row).__name__}: {str(row)[:200]}" for row in read_manifest(path, ReadOptions())]
    except Exception as error:
        found = [f"{type(error).__name__}: {error}"]
    teller.send(((peak_bytes() - before) // 1_000_000, found[:3]))
