"""`nightshift up`, `dispatcher`, `pairs`, `doctor`, `db upgrade`: what an operator runs."""

import signal
import sys
from contextlib import closing
from threading import Event
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from farm.broker import open_broker
from farm.database import Database
from farm.logs import log_to_stderr
from farm.schema import upgrade
from producer.cli.session import JsonOption, PairOption, open_session, print_json
from producer.dispatcher import Dispatcher
from producer.doctor import examine
from producer.firings import Firings
from producer.local_farm import LocalFarm
from producer.local_web import LocalWeb
from schemas.pair import ModelPair
from schemas.printable import printable
from schemas.settings import load_settings

app = typer.Typer()
db = typer.Typer(help="The ledger's tables.", no_args_is_help=True)
app.add_typer(db, name="db")

_TEND_SECONDS = 1.0

WebOption = Annotated[bool, typer.Option("--web/--no-web", help="Serve the web page, too, to this machine.")]


@app.command(epilog="Example: nightshift up --pair sdxl")
def up(pair: PairOption = None, web: WebOption = True) -> None:
    """Run a farm on this machine until Ctrl-C: Redis where none is set, a dispatcher, one worker per device, the web
    page."""
    with open_session() as session:
        log_to_stderr(session.settings.log_level, "dispatcher")
        name = session.settings.model_pair(pair).name
        stop = _stop_signal()
        database, settings = session.database, session.settings
        page = LocalWeb(settings, wanted=web)
        with LocalFarm(database, settings, name, shares_workers=False, fires_schedules=True) as farm, page:
            print(f"rendering with pair {name}; workers write to {farm.log_file}; Ctrl-C stops", file=sys.stderr)
            while not stop.wait(_TEND_SECONDS):
                farm.tend()
                page.tend()
            print("stopping after the packs in hand (Ctrl-C again: at once)", file=sys.stderr)
            signal.signal(signal.SIGINT, signal.default_int_handler)
    print("stopped; what is left waits in the ledger, `nightshift up` goes on with it", file=sys.stderr)


@app.command(epilog="Example: nightshift dispatcher")
def dispatcher() -> None:
    """Release packs to the workers until stopped. Any number may run; one at a time acts."""
    with open_session() as session:
        log_to_stderr(session.settings.log_level, "dispatcher")
        stop = _stop_signal()
        with closing(open_broker(session.settings)) as broker:
            broker.info()  # a Redis that is not there at the start is a mistake, later it is waited for
            firings = Firings(session.database, session.settings)
            Dispatcher(session.database, broker, session.settings, firings).run(stop)


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
    vae = [f"vae={pair.vae.source}"] if pair.vae else []
    return " ".join([*vae, *told, *(inversion.token for inversion in pair.textual_inversions)])


@app.command(epilog="Example: nightshift doctor")
def doctor(as_json: JsonOption = False) -> None:
    """Check what a farm needs from this machine, and say what to do. Exit code 3 when something is missing."""
    findings = examine(load_settings())
    if as_json:
        print_json([vars(finding) for finding in findings])
    else:
        for finding in findings:
            print(f"{'ok  ' if finding.ok else 'BAD '} {finding.subject}: {finding.sentence}")
    raise typer.Exit(0 if all(finding.ok for finding in findings) else 3)


@db.command("upgrade", epilog="Example: nightshift db upgrade")
def db_upgrade(as_json: JsonOption = False) -> None:
    """Bring the ledger's tables to this version of Nightshift. May be run again, and while the farm runs."""
    with closing(Database(load_settings().database_url)) as database:
        revision = upgrade(database)
        if as_json:
            print_json({"ledger": database.safe_url, "revision": revision})
        else:
            print(f"the ledger {database.safe_url} is at {revision}")


def _stop_signal() -> Event:
    """An event that SIGTERM and SIGINT set."""
    stop = Event()

    def handle(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
    return stop
