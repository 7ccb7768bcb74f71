"""`nightshift drain`."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from farm import draining
from producer.cli.answers import JsonOption, print_json
from producer.cli.session import Session, open_session
from schemas.errors import InputError, NotFoundError
from schemas.printable import printable

app = typer.Typer()

_SHOWN = 10


@app.command(epilog="Example: nightshift drain gpu7/cuda:3")
def drain(
    workers: Annotated[
        str | None, typer.Argument(help="A host, HOST/DEVICE, or the id of a worker.", metavar="HOST|WORKER")
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Let them take packs again.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Let workers take no more packs: each ends after the packs in its hands, and no other starts on its device.
    Without a name: list the devices that are drained.

    They hear of it within a third of a lease. Their supervisor stays, and gives the devices workers again after --undo,
    or when it is started anew.
    """
    with open_session() as session:
        if workers is None:
            _list(session, undo=undo, as_json=as_json)
            return
        told = draining.stop_draining(session.database, workers) if undo else draining.drain(session.database, workers)
        if not told:
            raise NotFoundError(_nobody(session, workers, undo=undo))
        if as_json:
            print_json({"undone": undo, "workers": [_told(row) for row in told]})
            return
        for row in _last_of_each(told):
            said = "may take packs again" if undo else "takes no more packs, and ends after those in its hands"
            print(printable(f"{row.device} of {row.host}, pair {row.pair}: {said}"))


def _list(session: Session, *, undo: bool, as_json: bool) -> None:
    if undo:
        raise InputError("--undo wants a name: a host, HOST/DEVICE, or a worker's id; `nightshift drain` lists them")
    found = draining.drained(session.database)
    if as_json:
        print_json({"drained": [{**_told(row), "since": row.draining_since.isoformat()} for row in found]})
        return
    for row in found:
        since = f"since {row.draining_since:%Y-%m-%d %H:%M} UTC"
        print(printable(f"{row.device} of {row.host}, pair {row.pair}: drained {since}, its worker is {row.state}"))
    if not found:
        print("no device is drained")


def _told(row: Any) -> dict[str, Any]:
    return {"id": row.id, "host": row.host, "device": row.device, "pair": row.pair, "state": row.state}


def _last_of_each(told: Sequence[Any]) -> Sequence[Any]:
    return list({(row.host, row.device, row.pair): row for row in told}.values())


def _nobody(session: Session, name: str, *, undo: bool) -> str:
    if undo:
        return f"no worker called {name!r} is drained; `nightshift drain` lists those that are"
    live = draining.names(session.database, session.settings.lease_seconds)
    more = f" and {len(live) - _SHOWN} more" if len(live) > _SHOWN else ""
    return f"no live worker is called {name!r}; there are: {', '.join(live[:_SHOWN]) or 'none'}{more}"
