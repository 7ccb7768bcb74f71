"""Images a second over time as bars of an SVG, whose places and texts a template writes. Pure."""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from producer.reports.report_figures import Throughput

WIDTH: Final = 720
HEIGHT: Final = 170
_MARGIN_TOP: Final = 10
_MARGIN_LEFT: Final = 44
_MARGIN_BOTTOM: Final = 20
#: tops that four lines divide into round numbers
_STEPS: Final = (1, 2, 4, 6, 8, 10)
#: of a shorter stretch minutes would say nothing
_SECONDS_SHOWN: Final = 600
_LINES: Final = 4
_TIMES: Final = 4


@dataclass(frozen=True)
class Bar:
    """``told``: what it shows, in words."""

    x: float
    y: float
    width: float
    height: float
    told: str


@dataclass(frozen=True)
class Plot:
    """``lines``: (y, what it stands for). ``times``: (x, when). ``one_in``: as ``Throughput`` has it."""

    bars: tuple[Bar, ...]
    lines: tuple[tuple[float, str], ...]
    times: tuple[tuple[float, datetime], ...]
    told: str
    has_seconds: bool
    one_in: int
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _MARGIN_LEFT


def plotted(found: Throughput | None) -> Plot | None:
    """None where nothing was rendered."""
    if found is None:
        return None
    rates, top = found.rates, _top(max(found.rates))
    step = (WIDTH - _MARGIN_LEFT) / len(rates)
    ground = HEIGHT - _MARGIN_BOTTOM - _MARGIN_TOP
    bars = tuple(_bar(found, place, step, ground / top) for place in range(len(rates)))
    lines = tuple(
        (round(_MARGIN_TOP + ground * (1 - n / _LINES), 1), f"{top * n / _LINES:g}") for n in range(_LINES + 1)
    )
    told = f"images a second over time: {max(rates):.3g} at the most, {sum(rates) / len(rates):.3g} on average"
    return Plot(bars, lines, _times(found, step), told, found.seconds * len(rates) < _SECONDS_SHOWN, found.one_in)


def _bar(found: Throughput, place: int, step: float, scale: float) -> Bar:
    rate, begins = found.rates[place], _begins(found, place)
    height = rate * scale
    told = f"{begins:%Y-%m-%d %H:%M:%S} UTC: {rate:.3g} images/s"
    x, y = _MARGIN_LEFT + place * step, HEIGHT - _MARGIN_BOTTOM - height
    return Bar(round(x, 2), round(y, 2), round(step * 0.86, 2), round(height, 2), told)


def _times(found: Throughput, step: float) -> tuple[tuple[float, datetime], ...]:
    every = max(1, math.ceil(len(found.nums) / _TIMES))
    return tuple((round(_MARGIN_LEFT + n * step, 1), _begins(found, n)) for n in range(0, len(found.nums), every))


def _begins(found: Throughput, place: int) -> datetime:
    return found.begins + timedelta(seconds=place * found.seconds)


def _top(rate: float) -> float:
    """A round number that is no smaller."""
    power = 10.0 ** math.floor(math.log10(rate))
    return next(step * power for step in _STEPS if step * power >= rate)
