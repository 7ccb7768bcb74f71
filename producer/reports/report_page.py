"""A report as one HTML file: sections as they are written, from figures and samples.

Names, prompts, errors and versions come from strangers: each is escaped, and none turns its neighbour's direction.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime, tzinfo
from html import escape
from typing import Any, Final

from producer.reports.markup import as_html, cut
from producer.reports.report_figures import Counted, DeviceWork, Figures, Reason
from producer.reports.report_plot import clock, plot
from producer.reports.report_samples import Sample
from producer.reports.report_style import STYLE
from schemas.printable import printable
from schemas.schedulers import short_scheduler_name

_PROMPT_CHARACTERS: Final = 160
_SENTENCE_CHARACTERS: Final = 600
_TIME: Final = "%a %Y-%m-%d %H:%M"
_DEVICES_NOTE: Final = (
    "Of each device, from its first pack of this batch to its last. Busy: how much of that time a pack was in hand."
)

_HEAD: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
"""


def page(report: Figures, samples: Iterable[Sample], zone: tzinfo | None) -> Iterator[str]:
    """The file, piece by piece. ``zone``: of its times; None is this machine's."""
    title = f"Batch {report.batch.id} · {cut(report.batch.name, _PROMPT_CHARACTERS)}"
    yield _HEAD.format(title=as_html(title), style=STYLE)
    yield from _header(report, zone)
    yield "<main>\n"
    if report.throughput is not None:
        yield from _throughput(report, zone)
    if report.reasons:
        yield from _failures(report)
    if report.devices:
        yield from _devices(report.devices)
    yield from _sheet(samples)
    yield from _making(report)
    yield "</main>\n</body>\n</html>\n"


# --- counts -----------------------------------------------------------------------------------------------------------


def _header(report: Figures, zone: tzinfo | None) -> Iterator[str]:
    batch = report.batch
    so_far = "" if batch.ended else ", so far"
    yield f"<header>\n<h1><bdi>{as_html(batch.name)}</bdi></h1>\n"
    yield f"<p>Batch {batch.id}, pair <bdi>{as_html(batch.pair)}</bdi>, {batch.shown_state}{so_far}. "
    yield f"Written {_time(report.now, zone)}.</p>\n"
    yield f"<p>{'. '.join(_dates(report, zone))}.</p>\n"
    yield '<dl class="tiles">\n'
    for name, value, kind in _tiles(report):
        yield f'<div class="{kind}"><dt>{name}</dt><dd>{value}</dd></div>\n'
    yield "</dl>\n"
    yield from _share(report)
    yield "</header>\n"


def _dates(report: Figures, zone: tzinfo | None) -> Iterator[str]:
    batch = report.batch
    yield f"Submitted {_time(report.opened_at or batch.created_at, zone)}"
    if report.first_at and report.last_at:
        yield f"Images from {_time(report.first_at, zone)} to {_time(report.last_at, zone)}"
    if batch.window:
        yield f"Window <bdi>{as_html(batch.window)}</bdi>"
    if batch.not_before:
        yield f"Not before {_time(batch.not_before, zone)}"
    if batch.deadline:
        yield f"Deadline {_time(batch.deadline, zone)}"


def _tiles(report: Figures) -> Iterator[tuple[str, str, str]]:
    batch = report.batch
    yield "jobs", f"{batch.num_jobs:,}", ""
    yield "done", f"{batch.num_done:,}", ""
    yield "failed", f"{batch.num_failed:,}", "bad" if batch.num_failed else ""
    if batch.num_canceled:
        yield "canceled", f"{batch.num_canceled:,}", ""
    if left := batch.num_jobs - batch.num_ended:
        yield "still to do", f"{left:,}", ""
    if report.num_linked:
        yield "linked, not rendered", f"{report.num_linked:,}", ""
    if report.render_seconds > 0 and report.num_rendered > 1:
        yield "images a second", f"{(report.num_rendered - 1) / report.render_seconds:.3g}", ""
        yield "first to last image", _span(report.render_seconds), ""
    yield "size of the files", _size(report.size_bytes), ""


def _share(report: Figures) -> Iterator[str]:
    batch = report.batch
    if not batch.num_jobs:
        return
    counts = {"done": batch.num_done, "failed": batch.num_failed, "canceled": batch.num_canceled}
    told = ", ".join(f"{num:,} {name}" for name, num in counts.items())
    yield f'<div class="share" role="img" aria-label="{told} of {batch.num_jobs:,} jobs">'
    yield from (
        f'<span class="{name}" style="width:{100 * num / batch.num_jobs:.3f}%"></span>' for name, num in counts.items()
    )
    yield "</div>\n"


# --- throughput -------------------------------------------------------------------------------------------------------


def _throughput(report: Figures, zone: tzinfo | None) -> Iterator[str]:
    throughput = report.throughput
    assert throughput is not None
    yield '<section aria-labelledby="throughput">\n<h2 id="throughput">Images a second</h2>\n'
    yield from plot(throughput, zone)
    yield f"<details><summary>the same in numbers, every {_span(throughput.seconds)}</summary>\n"
    rows = (
        (f'<th scope="row">{as_html(clock(throughput, place, zone))}</th>', f"{num:,}", f"{rate:.3g}")
        for place, (num, rate) in enumerate(zip(throughput.nums, throughput.rates, strict=True))
    )
    yield from _table(("from", "#images", "#images/s"), rows)
    yield "</details>\n</section>\n"


# --- failures ---------------------------------------------------------------------------------------------------------


def _failures(report: Figures) -> Iterator[str]:
    yield '<section aria-labelledby="failures">\n<h2 id="failures">Failures by reason</h2>\n'
    yield from _table(("#jobs", "code", "*reason, and the first job that has it"), map(_reason_row, report.reasons))
    if rest := report.batch.num_failed - sum(reason.num_jobs for reason in report.reasons):
        yield f'<p class="note">{rest:,} more failed for rarer reasons: '
        yield f"<code>nightshift failures {report.batch.id}</code> lists them all.</p>\n"
    yield "</section>\n"


def _reason_row(reason: Reason) -> tuple[str, ...]:
    tries = "1 try" if reason.attempts == 1 else f"{reason.attempts} tries"
    said = f'<span dir="auto">{as_html(cut(reason.sentence, _SENTENCE_CHARACTERS))}</span>'
    example = f"job {reason.number:,}, {tries}: <bdi>{as_html(cut(reason.prompt, _PROMPT_CHARACTERS))}</bdi>"
    folded = ""
    if reason.traceback:
        lines = "\n".join(map(printable, reason.traceback.split("\n")))
        folded = f'<details><summary>traceback</summary><pre dir="ltr">{escape(lines)}</pre></details>'
    return (f"{reason.num_jobs:,}", as_html(reason.code), f'{said}<div class="note">{example}</div>{folded}')


# --- devices ----------------------------------------------------------------------------------------------------------


def _devices(devices: Iterable[DeviceWork]) -> Iterator[str]:
    yield '<section aria-labelledby="devices">\n<h2 id="devices">Devices</h2>\n'
    yield from _table(("device", "#images", "#images/s", "#busy", "#failed"), map(_device_row, devices), _DEVICES_NOTE)
    yield "</section>\n"


def _device_row(work: DeviceWork) -> tuple[str, ...]:
    rate = f"{work.images_per_second:.3g}" if work.images_per_second is not None else "–"
    busy = f"{work.busy_share:.0%}" if work.seconds > 0 else "–"
    name = f'<th scope="row" class="long"><bdi>{as_html(work.device)}</bdi> of <bdi>{as_html(work.host)}</bdi></th>'
    return (name, f"{work.num_images:,}", rate, busy, f"{work.num_failed:,}")


# --- samples ----------------------------------------------------------------------------------------------------------


def _sheet(samples: Iterable[Sample]) -> Iterator[str]:
    is_first = True
    for sample in samples:
        if is_first:
            yield '<section aria-labelledby="samples">\n<h2 id="samples">Samples</h2>\n<div class="sheet">\n'
        is_first = False
        yield _figure(sample)
    if not is_first:
        yield "</div>\n</section>\n"


def _figure(sample: Sample) -> str:
    prompt = as_html(cut(sample.prompt, _PROMPT_CHARACTERS))
    if sample.flaw:
        picture = f'<div class="none" dir="auto">{as_html(cut(sample.flaw, _SENTENCE_CHARACTERS))}</div>'
    else:
        size = f'width="{sample.width}" height="{sample.height}"'
        picture = f'<img src="{sample.data_url}" {size} alt="Job {sample.number}: {prompt}">'
    told = f'<span class="field">job {sample.number:,} · {as_html(sample.detail)}</span>'
    return f"<figure>{picture}<figcaption><bdi>{prompt}</bdi>{told}</figcaption></figure>\n"


# --- how they were made -----------------------------------------------------------------------------------------------


def _making(report: Figures) -> Iterator[str]:
    yield '<section aria-labelledby="making">\n<h2 id="making">How they were made</h2>\n'
    yield from _table(("size", "#steps", "scheduler", "#jobs"), map(_kind_row, report.shapes), "Commonest first.")
    for counted in report.environments:
        yield f"<details open><summary>{counted.num:,} images with these weights and versions</summary>\n"
        rows = ((f'<th scope="row">{name}</th>', value) for name, value in _environment(counted.content))
        yield from _table(("", "*"), rows)
        yield "</details>\n"
    yield "</section>\n"


def _kind_row(kind: Counted) -> tuple[str, ...]:
    size, steps, scheduler, *options = kind.content.split("/")
    chosen = " with options or LoRAs" if options else ""
    name = f"{as_html(short_scheduler_name(scheduler))}{chosen}"
    return (f'<th scope="row">{as_html(size.replace("x", "×"))}</th>', as_html(steps), name, f"{kind.num:,}")


def _environment(content: Any) -> Iterator[tuple[str, str]]:
    for name in ("pair", "base", "base_revision", "refiner", "refiner_revision", "vae", "license"):
        if content.get(name):
            yield name.replace("_", " "), f"<bdi>{as_html(str(content[name]))}</bdi>"
    yield "fingerprint", f"<code>{as_html(content['pair_fingerprint'])}</code>"
    how = [content[name] for name in ("device", "dtype", "attention_backend") if content.get(name)]
    yield "device, dtype, attention", f"<bdi>{as_html(', '.join(map(str, how)))}</bdi>"
    versions = ", ".join(f"{name} {version}" for name, version in sorted(content["versions"].items()))
    yield "versions", f"<bdi>{as_html(versions)}</bdi>"


# --- pieces -----------------------------------------------------------------------------------------------------------


def _table(headings: Iterable[str], rows: Iterable[tuple[str, ...]], caption: str = "") -> Iterator[str]:
    """Headings with ``#`` are of numbers, with ``*`` of long texts. Cells are HTML, or a whole ``<th>``."""
    headings = list(headings)
    names = [heading.lstrip("#*") for heading in headings]
    yield '<div class="scroll"><table>\n'
    if caption:
        yield f"<caption>{caption}</caption>\n"
    if any(names):
        named = (f'<th scope="col"{_kind(heading)}>{name}</th>' for heading, name in zip(headings, names, strict=True))
        yield f"<thead><tr>{''.join(named)}</tr></thead>\n"
    yield "<tbody>\n"
    for row in rows:
        cells = (_cell(heading, cell) for heading, cell in zip(headings, row, strict=True))
        yield f"<tr>{''.join(cells)}</tr>\n"
    yield "</tbody></table></div>\n"


def _cell(heading: str, cell: str) -> str:
    return cell if cell.startswith("<th") else f"<td{_kind(heading)}>{cell}</td>"


def _kind(heading: str) -> str:
    kinds = {"#": ' class="num"', "*": ' class="long"'}
    return kinds.get(heading[:1], "")


def _time(instant: datetime, zone: tzinfo | None) -> str:
    local = instant.astimezone(zone)
    return as_html(f"{local:{_TIME}} {getattr(zone, 'key', local.tzname())}")


def _span(seconds: float) -> str:
    """``10 s``, ``5 min``, ``7 h 31 min``, ``2 d 3 h``: the two largest units."""
    units = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))
    left, parts = round(seconds), list[str]()
    for unit, length in units:
        num, left = divmod(left, length)
        if num:
            parts.append(f"{num} {unit}")
    return " ".join(parts[:2]) or "under 1 s"


def _size(num_bytes: int) -> str:
    size, units = float(num_bytes), iter(("bytes", "kB", "MB", "GB", "TB", "PB"))
    unit = next(units)
    while size >= 999.5:  # which three digits would show as 1e+03
        size, unit = size / 1000, next(units)
    return f"{size:.3g} {unit}"
