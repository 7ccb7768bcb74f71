"""Compressed files as streams: gzip and zstd, every member of them, in constant memory whatever they unfold to."""

import gzip
import io
import zlib
from collections.abc import Callable
from types import MappingProxyType
from typing import Any, BinaryIO, Final

from schemas.errors import ManifestError
from schemas.printable import printable

PLAIN: Final = "plain"

_GZIP_MAGIC: Final = b"\x1f\x8b"
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_SKIPPABLE_END: Final = b"\x2a\x4d\x18"
_BUFFER_BYTES: Final = 1 << 17
#: What zstd reads without being asked to (``zstd --ultra -22`` writes so much): a frame's window is held in memory.
_MAX_WINDOW_BYTES: Final = 1 << 27
#: A block of four bytes unfolds to 128 KiB, so that this is never more than 32 MiB at once.
_ZSTD_INPUT_BYTES: Final = 1 << 10


def compression_of(head: bytes) -> str:
    """By the first bytes. No text in UTF-8 begins like gzip or zstd, and none with the control character of a frame
    that zstd skips, which parallel compressors put first."""
    if head.startswith(_GZIP_MAGIC):
        return "gzip"
    skippable = head[1:4] == _SKIPPABLE_END and 0x50 <= head[0] <= 0x5F
    return "zstd" if head.startswith(_ZSTD_MAGIC) or skippable else PLAIN


def decompressed(file: BinaryIO, compression: str, name: str) -> io.BufferedReader:
    """What the file holds. ``name``: the file's, printable.

    Raises:
        ManifestError: here, where the package is missing; when it is read, where the stream is broken or ends early.
    """
    return io.BufferedReader(_READERS[compression](file, name), _BUFFER_BYTES)


class _GzipReader(io.RawIOBase):
    def __init__(self, file: BinaryIO, name: str) -> None:
        self._stream = gzip.GzipFile(fileobj=file, mode="rb")
        self._name = name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            content = self._stream.read1(len(buffer))
        except EOFError:
            raise _ends_early(self._name, "gzip") from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise _broken(self._name, "gzip", error) from None
        buffer[: len(content)] = content
        return len(content)


class _ZstdReader(io.RawIOBase):
    """Frame after frame. The package's own stream reader takes a frame without an end for one that has ended."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._zstandard = _zstandard(name)
        self._file = file
        self._name = name
        self._packed = b""
        self._unpacked = memoryview(b"")
        self._frame: Any = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._unpacked and self._unpack():
            pass
        num = min(len(buffer), len(self._unpacked))
        buffer[:num] = self._unpacked[:num]
        self._unpacked = self._unpacked[num:]
        return num

    def _unpack(self) -> bool:
        """A little more; False at the end."""
        self._packed = self._packed or self._file.read(_ZSTD_INPUT_BYTES)
        if not self._packed and self._frame is not None:
            raise _ends_early(self._name, "zstd")
        if not self._packed:
            return False
        if self._frame is None:
            self._frame = self._zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES).decompressobj()
        try:
            self._unpacked = memoryview(self._frame.decompress(self._packed))
        except self._zstandard.ZstdError as error:
            raise _broken(self._name, "zstd", error) from None
        self._packed = self._frame.unused_data if self._frame.eof else b""
        self._frame = None if self._frame.eof else self._frame
        return True


def _zstandard(name: str) -> Any:
    try:
        import zstandard  # noqa: PLC0415  only who has such files needs it
    except ImportError:
        raise ManifestError(
            f"{name} is compressed by zstd, which needs a package: pip install 'nightshift[zstd]'"
        ) from None
    return zstandard


def _ends_early(name: str, compression: str) -> ManifestError:
    return ManifestError(f"{name} is not whole: its {compression} stream ends early; was it copied to its end?")


def _broken(name: str, compression: str, error: Exception) -> ManifestError:
    return ManifestError(f"{name} is broken: its {compression} stream cannot be unpacked: {printable(str(error))}")


_READERS: Final[MappingProxyType[str, Callable[[BinaryIO, str], io.RawIOBase]]] = MappingProxyType(
    {"gzip": _GzipReader, "zstd": _ZstdReader}
)
