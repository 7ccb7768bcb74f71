"""A page of grids: one HTML file without scripts and without anything from elsewhere, written row by row.

Prompts and reasons come from strangers: every text is escaped, and rid of control characters and direction overrides.
"""

import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from producer.expanding.axes import Axes, AxisValue
from producer.reports.grid import IMAGES, Cell, Grid
from producer.reports.markup import as_html, cut
from schemas.errors import StorageError

_SHOWN_CHARACTERS: Final = 300
_ALT_CHARACTERS: Final = 120

_STYLE: Final = """
:root { color-scheme: light dark; --paper: #fbfbfa; --ink: #1c1d1f; --faint: #63666d; --well: #ececea; --line: #dcdcd8;
  --bad: #a3291c; --link: #1656b8; }
@media (prefers-color-scheme: dark) { :root { --paper: #141517; --ink: #e6e7ea; --faint: #989ca5; --well: #1f2023;
  --line: #2c2e32; --bad: #eb8e80; --link: #8ab6ff; } }
* { box-sizing: border-box; }
body { margin: 0; padding: 1.5rem clamp(1rem, 3vw, 3rem) 4rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.15rem; margin: 0 0 .25rem; }
h2 { font-size: 1.25rem; line-height: 1.35; margin: 0; max-width: 60rem; overflow-wrap: anywhere; }
p { margin: .25rem 0 .75rem; }
p, summary, .field { color: var(--faint); font-size: .875rem; }
details { max-width: 60rem; overflow-wrap: anywhere; margin: .25rem 0; }
section { border-top: 1px solid var(--line); margin-top: 2rem; padding-top: 1.5rem; }
a { color: var(--link); }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
.scroll { overflow-x: auto; padding: 4px; margin: -4px; }
table { border-collapse: separate; border-spacing: .5rem; margin: -.5rem; }
th { text-align: left; font-weight: 600; vertical-align: bottom; overflow-wrap: anywhere; }
tbody th { vertical-align: middle; min-width: 4rem; max-width: 12rem; position: sticky; left: 0;
  background: var(--paper); }
.field { display: block; font-weight: 400; white-space: nowrap; }
td { padding: 0; vertical-align: top; }
td a { display: block; border-radius: 6px; }
td img { display: block; height: auto; max-width: min(32rem, 78vw); border-radius: 6px; background: var(--well); }
.none { width: 14rem; min-height: 8rem; padding: .75rem; border-radius: 6px; background: var(--well); color: var(--bad);
  font-size: .875rem; overflow-wrap: anywhere; }
"""

_HEAD: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="script-src 'none'; object-src 'none'; base-uri 'none'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1 dir="auto">{title}</h1>
<p>{axes}. A picture leads to its full file.</p>
"""


def grid_page(grids: Iterable[Grid], path: Path, title: str, axes: Axes) -> int:
    """Writes the page: a section for each grid as it comes, whole and in place of an older one. Returns how many.

    Raises:
        StorageError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    num_grids = 0
    try:
        with open(temporary, "x", encoding="utf-8") as stream:
            stream.write(_HEAD.format(title=as_html(title), style=_STYLE, axes=as_html(_named(axes))))
            for grid in grids:
                stream.writelines(_section(grid))
                num_grids += 1
            stream.write("</body>\n</html>\n")
        temporary.replace(path)
    except OSError as error:
        raise StorageError(f"cannot write the page {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return num_grids


def _named(axes: Axes) -> str:
    across = f"{axes.x.field} from left to right"
    return f"{across}, {axes.y.field} from top to bottom" if axes.y else across


def _section(grid: Grid) -> Iterator[str]:
    shown = cut(grid.title, _SHOWN_CHARACTERS)
    yield f'<section id="{grid.name}" aria-labelledby="{grid.name}-title">\n'
    yield f'<h2 id="{grid.name}-title" dir="auto">{as_html(shown)}</h2>\n'
    if shown != grid.title:
        yield f'<details><summary>the whole prompt</summary><div dir="auto">{as_html(grid.title)}</div></details>\n'
    yield f'<p>{as_html(grid.shared)} · <a href="{grid.name}.png">as one sheet</a></p>\n'
    yield f'<div class="scroll" role="region" tabindex="0" aria-labelledby="{grid.name}-title">\n<table>\n<thead>\n<tr>'
    yield "<td></td>" if grid.axes.y else ""
    yield from (_heading(value, "col") for value in grid.axes.x.values)
    yield "</tr>\n</thead>\n<tbody>\n"
    for heading, cells in zip(grid.headings, grid.lines, strict=True):
        yield "<tr>" + (_heading(heading, "row") if heading else "") + "\n"
        yield from (_cell(cell) for cell in cells)
        yield "</tr>\n"
    yield "</tbody>\n</table>\n</div>\n</section>\n"


def _heading(value: AxisValue, scope: str) -> str:
    return (
        f'<th scope="{scope}"><span class="field">{as_html(value.field)}</span>'
        f'<span dir="auto">{as_html(value.label)}</span></th>'
    )


def _cell(cell: Cell) -> str:
    if cell.file is None:
        return f'<td><div class="none" dir="auto">{as_html(cell.reason)}</div></td>\n'
    alt = f"{cut(cell.spec.prompt, _ALT_CHARACTERS)} ({cell.label})"
    return (
        f'<td><a href="{IMAGES}/{as_html(cell.file.name)}"><img src="{IMAGES}/{as_html(cell.file.name)}"'
        f' width="{cell.spec.width}" height="{cell.spec.height}" loading="lazy" alt="{as_html(alt)}"></a></td>\n'
    )
