"""Images a second over time, drawn: bars in an SVG that any width stretches, with the figures beside them as text."""

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from producer.reports.markup import as_html
from producer.reports.report_figures import Throughput

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_STEPS: Final = (
    *(1, 2, 5, 10, 15, 30, _MINUTE, 2 * _MINUTE, 5 * _MINUTE, 10 * _MINUTE, 15 * _MINUTE, 30 * _MINUTE),
    *(_HOUR, 2 * _HOUR, 3 * _HOUR, 6 * _HOUR, 12 * _HOUR, _DAY, 2 * _DAY, 7 * _DAY, 28 * _DAY, 91 * _DAY, 365 * _DAY),
)
_MOST_TIMES: Final = 4
_MOST_RATES: Final = 4
#: so many hundredths of the width are kept free at both ends, or a time's text would stand out
_MARGIN: Final = 5.0
_HEIGHT: Final = 100


def plot(throughput: Throughput, zone: tzinfo | None) -> Iterator[str]:
    """HTML. Times are shown in the zone; None is this machine's."""
    rates = throughput.rates
    step = _rate_step(max(rates))
    top = step * math.ceil(max(rates) / step)
    yield '<div class="plot">\n<div class="rates" aria-hidden="true">'
    for number in range(round(top / step) + 1):
        yield f'<span style="bottom:{100 * number * step / top:.2f}%">{number * step:g}</span>'
    yield "</div>\n"
    yield f'<svg viewBox="0 0 {len(rates)} {_HEIGHT}" preserveAspectRatio="none" role="img"'
    yield f' aria-label="{_told(rates)}">\n'
    for number in range(1, round(top / step) + 1):
        y = _HEIGHT * (1 - number * step / top)
        yield f'<line x1="0" x2="{len(rates)}" y1="{y:.2f}" y2="{y:.2f}"/>\n'
    for place, rate in enumerate(rates):
        yield _bar(place, rate, top, clock(throughput, place, zone))
    yield '</svg>\n<div class="times" aria-hidden="true">'
    yield from (f'<span style="left:{left:.2f}%">{as_html(time)}</span>' for left, time in _times(throughput, zone))
    yield "</div>\n</div>\n"


def clock(throughput: Throughput, place: int, zone: tzinfo | None) -> str:
    """When this stretch begins, as exactly as stretches are long: ``22:05``, ``Sat 21 Nov 22:00``."""
    begins = throughput.begins + timedelta(seconds=place * throughput.seconds)
    span = throughput.seconds * len(throughput.nums)
    return _written(begins.astimezone(zone), throughput.seconds, span)


def _bar(place: int, rate: float, top: float, time: str) -> str:
    height = _HEIGHT * rate / top
    size = f'width="0.84" height="{height:.2f}"'
    return (
        f'<rect x="{place + 0.08:.2f}" y="{_HEIGHT - height:.2f}" {size}>'
        f"<title>{as_html(time)}: {rate:.3g} images/s</title></rect>\n"
    )


def _told(rates: tuple[float, ...]) -> str:
    return f"Images a second over time: {max(rates):.3g} at the most, {sum(rates) / len(rates):.3g} on average"


def _rate_step(largest: float) -> float:
    """1, 2 or 5 times a power of ten, so that there are few lines."""
    power: float = 10.0 ** math.floor(math.log10(largest / _MOST_RATES))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor * _MOST_RATES >= largest)


def _times(throughput: Throughput, zone: tzinfo | None) -> Iterator[tuple[float, str]]:
    """Round times of the zone's clock, and where they stand in hundredths of the width: where the bars of these moments
    are, also in a night in which the clock is set."""
    span = throughput.seconds * len(throughput.nums)
    step = next((step for step in _STEPS if span / step <= _MOST_TIMES), span)
    begins = throughput.begins.astimezone(zone)
    midnight = begins.replace(hour=0, minute=0, second=0, microsecond=0)
    first, last = math.ceil((begins - midnight).total_seconds() / step), 0.0
    for number in range(first, first + _MOST_TIMES + 1):
        moment = (midnight + timedelta(seconds=number * step)).astimezone(UTC)
        left = 100 * (moment - throughput.begins).total_seconds() / span
        if max(last, _MARGIN) <= left <= 100 - _MARGIN:
            yield left, _written(moment.astimezone(zone), step, span)
            last = left + _MARGIN  # two times of which one is jumped over are the same moment


def _written(time: datetime, exact_seconds: float, span_seconds: float) -> str:
    if exact_seconds >= _DAY:
        return f"{time:%d %b}"
    clock = f"{time:%H:%M:%S}" if exact_seconds < _MINUTE else f"{time:%H:%M}"
    return f"{time:%a %d} {clock}" if span_seconds > _DAY else clock
