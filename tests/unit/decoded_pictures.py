"""Decodes pictures one by one, and says how much memory this process had at the most, for each.

python -m tests.unit.decoded_pictures FILE... > [{"reason": ..., "grown_bytes": ...}, ...]
"""

import json
import sys
from pathlib import Path

from farm.image_file import read_image_file
from farm.init_image import decoded_picture, picture_header
from schemas.errors import NightshiftError
from tests.peak_memory import peak_bytes


def main() -> None:
    told = []
    for name in sys.argv[1:]:
        before = peak_bytes()
        told.append({"reason": _reason(Path(name)), "grown_bytes": peak_bytes() - before})
    json.dump(told, sys.stdout)


def _reason(path: Path) -> str | None:
    content = path.read_bytes()
    reasons = []
    for read in (picture_header, decoded_picture, lambda _: read_image_file(path)):
        try:
            read(content)
        except NightshiftError as error:
            reasons.append(str(error))
    return reasons[0] if reasons else None


if __name__ == "__main__":
    main()
