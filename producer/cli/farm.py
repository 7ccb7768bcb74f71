"""`nightshift up` and `nightshift dispatcher`: what runs until it is stopped."""

import signal
import sys
from contextlib import closing
from threading import Event
from types import FrameType
from typing import Annotated

import typer

from farm.broker import open_broker
from farm.logs import log_to_stderr
from producer.cli.session import PairOption, open_session
from producer.dispatching.dispatcher import Dispatcher
from producer.dispatching.firings import Firings
from producer.dispatching.told_metrics import told_metrics
from producer.local_farm import LocalFarm
from producer.local_web import LocalWeb

app = typer.Typer()

_TEND_SECONDS = 1.0

WebOption = Annotated[bool, typer.Option("--web/--no-web", help="Serve the web page, too, to this machine.")]


@app.command(epilog="Example: nightshift up --pair sdxl")
def up(pair: PairOption = None, web: WebOption = True) -> None:
    """Run a farm on this machine until Ctrl-C: Redis where none is set, a dispatcher, one worker per device, the web
    page."""
    with open_session() as session:
        log_to_stderr(session.settings, "dispatcher")
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
        log_to_stderr(session.settings, "dispatcher")
        stop = _stop_signal()
        with closing(open_broker(session.settings)) as broker:
            broker.info()  # a Redis that is not there at the start is a mistake, later it is waited for
            firings = Firings(session.database, session.settings)
            with told_metrics(session.database, session.settings) as note:
                Dispatcher(session.database, broker, session.settings, firings).run(stop, note)


def _stop_signal() -> Event:
    """An event that SIGTERM and SIGINT set."""
    stop = Event()

    def handle(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
    return stop
