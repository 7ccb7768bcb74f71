"""`nightshift pairs`."""

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from producer.cli.answers import JsonOption, print_json
from schemas.pair import ModelPair
from schemas.printable import printable
from schemas.settings import load_settings

app = typer.Typer()


@app.command(epilog="Example: nightshift pairs --json")
def pairs(as_json: JsonOption = False) -> None:
    """List the pairs that can be named with --pair."""
    settings = load_settings()
    known = settings.known_pairs()
    if as_json:
        print_json([pair.model_dump(mode="json") for _, pair in sorted(known.items())])
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("pair", "base", "refiner", "options", "licence"):
        table.add_column(heading)
    for name, pair in sorted(known.items()):
        mark = " (default)" if name == settings.pair else ""
        refiner = pair.refiner.source if pair.refiner else "none"
        texts = (name + mark, pair.base.source, refiner, _options(pair), pair.license)
        table.add_row(*(escape(printable(text)) for text in texts))
    Console().print(table)


def _options(pair: ModelPair) -> str:
    """Those that are not as they are for every pair; then the learned tokens."""
    names = ("dtype", "vae_slicing", "vae_tiling", "offload", "watermark")
    chosen = {name: getattr(pair, name) for name in names}
    told = [f"{name}={value}" for name, value in chosen.items() if value != ModelPair.model_fields[name].default]
    told += [f"{name}={value}" for name, value in pair.options.chosen().items()]
    vae = [f"vae={pair.vae.source}"] if pair.vae else []
    return " ".join([*vae, *told, *(inversion.token for inversion in pair.textual_inversions)])
