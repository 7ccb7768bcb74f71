"""A tar that is the same bytes each time: POSIX ustar, no times, no owners, mode 0644."""

from typing import BinaryIO, Final

_BLOCK: Final = 512
_RECORD: Final = 20 * _BLOCK
_MODE_OWNERS: Final = b"0000644\0" + 2 * b"0000000\0"
_NO_TIME: Final = b"%011o\0" % 0
_PADDING: Final = bytes(_BLOCK)
_SUM_BLANK: Final = b" " * 8
_REGULAR_FILE: Final = b"0"
_REST: Final = (b"ustar\0" + b"00").rjust(100 + 8, b"\0").ljust(_BLOCK - 156 - 1, b"\0")
#: what every header's checksum has in common
_SUM_OF_THE_SAME: Final = sum(_MODE_OWNERS + _NO_TIME + _SUM_BLANK + _REGULAR_FILE + _REST)


class TarStream:
    """Members one after the other. ``num_bytes``: written so far. Names are ASCII of at most 100 characters."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.num_bytes = 0

    def add(self, name: str, content: bytes) -> None:
        self._write(_header(name, len(content)))
        self._write(content)
        self._write(_PADDING[: -len(content) % _BLOCK])

    def finish(self) -> None:
        """The two empty blocks at the end, and as many more as fill a record."""
        self._write(b"\0" * (2 * _BLOCK))
        self._write(b"\0" * (-self.num_bytes % _RECORD))

    def _write(self, content: bytes) -> None:
        self._stream.write(content)
        self.num_bytes += len(content)


def _header(name: str, size: int) -> bytes:
    """https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html, ustar Interchange Format."""
    named, sized = name.encode("ascii"), b"%011o\0" % size
    checksum = sum(named) + sum(sized) + _SUM_OF_THE_SAME
    beginning = b"%s%s%s%s" % (named.ljust(100, b"\0"), _MODE_OWNERS, sized, _NO_TIME)
    return b"%s%06o\0 %s%s" % (beginning, checksum, _REGULAR_FILE, _REST)
