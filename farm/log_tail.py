"""What a process said last, before it ended: the end of its log file."""

from pathlib import Path
from typing import Final

_TAIL_BYTES: Final = 2_000


def last_line(path: Path) -> str:
    """The last line that is not blank, without the command's own prefix."""
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        lines = stream.read().decode(errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "it said nothing")
    return last.removeprefix("nightshift: ").strip()
