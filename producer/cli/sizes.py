"""`nightshift sizes`."""

import typer
from rich.console import Console
from rich.table import Table

from producer.cli.answers import JsonOption, print_json
from schemas.buckets import BUCKETS, LANDSCAPE_BUCKETS, Bucket, names_of

app = typer.Typer()


@app.command(epilog="Example: nightshift sizes --json")
def sizes(as_json: JsonOption = False) -> None:
    """List the sizes that SDXL was trained at, and the aspect ratios that stand for them."""
    if as_json:
        print_json([_content(size) for size in BUCKETS])
        return
    console = Console()
    console.print(_table())
    console.print("aspect_ratio takes any W:H up to 4:1 and picks the size with the nearest ratio.", highlight=False)


def _content(size: Bucket) -> dict[str, object]:
    return {
        **size._asdict(),
        "aspect_ratio": names_of(size)[0],
        "ratio": round(size.ratio, 4),
        "megapixels": round(size.megapixels, 3),
    }


def _table() -> Table:
    """A line for each size, with the same size turned beside it; from square to wide."""
    table = Table(box=None, pad_edge=False)
    for heading in ("landscape", "ratio", "aspect_ratio", "portrait", "ratio", "aspect_ratio", "megapixels"):
        table.add_column(heading, no_wrap=True, justify="left" if heading == "aspect_ratio" else "right")
    for size in LANDSCAPE_BUCKETS:
        turned = size.portrait if size.portrait != size else None
        table.add_row(*_cells(size), *(_cells(turned) if turned else ("", "", "")), f"{size.megapixels:.2f}")
    return table


def _cells(size: Bucket) -> tuple[str, str, str]:
    return f"{size.width} × {size.height}", f"{size.ratio:.2f}", ", ".join(names_of(size))
