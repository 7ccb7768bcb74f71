"""When a batch may be rendered, and by when it should be. Pure: instants are given."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Self

from schemas.errors import InputError, SettingsError
from schemas.wall_clock import shown_at, zone_named
from schemas.windows import Window

_CLOCK: Final = re.compile(r"(?P<wall>\d{4}-\d\d-\d\d[ T]\d\d:\d\d(?::\d\d)?) (?P<zone>[A-Za-z]\S*)")


@dataclass(frozen=True)
class Timing:
    """``window``: as ``schemas.windows`` reads it. ``deadline``: later is late, but is rendered all the same."""

    window: str | None = None
    not_before: datetime | None = None
    deadline: datetime | None = None

    @classmethod
    def parse(cls, window: str | None, not_before: str | None, deadline: str | None) -> Self:
        """From what a user wrote.

        Raises:
            InputError: says which of them is malformed, or that the deadline comes first.
        """
        try:
            checked = Window.parse(window).text if window is not None else None
        except SettingsError as error:
            raise InputError(f"--{error}") from None
        timing = cls(checked, _given("--not-before", not_before), _given("--deadline", deadline))
        if timing.not_before and timing.deadline and timing.deadline <= timing.not_before:
            raise InputError(f"--deadline {deadline} is not after --not-before {not_before}")
        return timing


ANY_TIME: Final = Timing()


def instant(text: str) -> datetime:
    """``2026-11-22T22:00+01:00``, or ``2026-11-22 22:00 Europe/Berlin``, in UTC. Raises ValueError with a sentence."""
    named = _CLOCK.fullmatch(text.strip())
    try:
        found = datetime.fromisoformat(named["wall"] if named else text.strip())
    except ValueError:
        raise ValueError("is no time; such as 2026-11-22T22:00+01:00 or '2026-11-22 22:00 Europe/Berlin'") from None
    if named:
        return shown_at(found, zone_named(named["zone"]))
    if found.tzinfo is None:
        raise ValueError(f"names no time zone; such as '{text.strip()} Europe/Berlin'")
    return found.astimezone(UTC)


def _given(option: str, text: str | None) -> datetime | None:
    try:
        return None if text is None else instant(text)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{option} {text!r}: {error}") from None
