"""What may stand in a schedule's order and in the rows of its manifest for what differs from firing to firing. Pure.

Only exactly these names in braces are replaced: other braces are text, or a template's.
"""

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

from schemas.digest import canonical_json
from schemas.wall_clock import wall_at

_PLACEHOLDER: Final = re.compile(r"\{(date|time|seed)\}")


def placeholder_values(schedule: str, due_at: datetime, zone: ZoneInfo) -> dict[str, str]:
    """``date`` (2026-11-23) and ``time`` (2200) of the firing on the zone's clock, and ``seed``."""
    wall = wall_at(due_at, zone)
    return {"date": f"{wall:%Y-%m-%d}", "time": f"{wall:%H%M}", "seed": str(firing_seed(schedule, due_at))}


def firing_seed(schedule: str, due_at: datetime) -> int:
    """The first 8 bytes, big-endian, of sha256 over canonical JSON of the schedule's name and the time in UTC."""
    content = canonical_json({"schedule": schedule, "due_at": due_at.astimezone(UTC).isoformat()})
    return int.from_bytes(hashlib.sha256(content.encode()).digest()[:8], "big")


def filled(text: str, values: Mapping[str, str]) -> str:
    """The text with its placeholders replaced."""
    return _PLACEHOLDER.sub(lambda match: values[match[1]], text)
