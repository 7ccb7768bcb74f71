"""`nightshift worker`: the data plane's command. Imports no torch; the processes that it starts do."""

import os
import signal
import subprocess
import sys
from contextlib import closing, nullcontext
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from farm.broker import open_broker
from farm.database import Database
from farm.image_store import ImageStore
from farm.logs import log_to_stderr
from farm.recorded_images import recorded_image
from farm.schema import ensure_schema
from schemas.errors import NightshiftError
from schemas.printable import printable
from schemas.settings import Settings, load_settings
from worker.host.assignments import assignments
from worker.host.devices import devices
from worker.host.health import Health, answering
from worker.host.supervisor import Supervisor
from worker.host.told_metrics import counting_environment, told_metrics

app = typer.Typer()


@app.command(epilog="Example: nightshift worker --pair sdxl --devices 0,1")
def worker(
    pair: Annotated[
        list[str] | None,
        typer.Option(
            "--pair", help="The pair to pin, of `nightshift pairs`; several as NAME:DEVICES, each with its own."
        ),
    ] = None,
    devices_: Annotated[
        str | None, typer.Option("--devices", help="auto (every GPU, else the CPU), cpu, or indices: 0,1")
    ] = None,
) -> None:
    """Render packs, with one process per device, until stopped. Stops gently: finishes the pack in hand."""
    settings = load_settings()
    log_to_stderr(settings, "supervisor")
    seats = assignments(settings, pair or [], devices_)
    database = Database(settings.database_url, keeps_connection=False)  # its processes have one each
    ensure_schema(database)
    ImageStore(settings.images_url).check()
    with closing(open_broker(settings)) as broker:
        broker.info()  # a Redis that is not there at the start is a mistake, later it is waited for
    with counting_environment(settings) as environment:
        code = _run(database, settings, Supervisor(database, settings, seats, environment), environment)
    raise typer.Exit(code)


def _run(database: Database, settings: Settings, supervisor: Supervisor, environment: dict[str, str]) -> int:
    def stop(_signal: int, _frame: FrameType | None) -> None:
        supervisor.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    health = Health(database, supervisor)
    with (
        answering(health, settings.health_port) if settings.health_port else nullcontext(),
        told_metrics(health, settings, environment),
    ):
        return supervisor.run()


@app.command(epilog="Example: nightshift reproduce 3/17")
def reproduce(
    images: Annotated[
        list[str], typer.Argument(help="Jobs as BATCH/NUMBER, or image files: their metadata is enough.")
    ],
    out: Annotated[Path | None, typer.Option("--out", help="A folder for the images that are made again.")] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="auto (the first GPU, else the CPU), cpu, or an index")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, a line for each image.")] = False,
) -> None:
    """Render recorded images again and compare: identical file, identical pixels, or how far off and what is otherwise.

    Exit code 0 where all pixels are identical, 1 where some are not, 2 or 3 where an image cannot be made again; the
    others are, all the same.
    """
    settings = load_settings()
    seat = devices(device or settings.devices)[0]
    checked = [(image, _checked(settings, image)) for image in images]  # before the time that importing torch takes
    exit_code = max(code for _, code in checked)
    if known := [image for image, code in checked if code == 0]:
        options = ["--device", seat.name, *([f"--out={out}"] if out else []), *(["--json"] if as_json else [])]
        command = [sys.executable, "-m", "worker.reproduction", *options, "--", *known]
        environment = {"TRANSFORMERS_VERBOSITY": "error", **os.environ, **seat.environment}
        ended = subprocess.run(command, env=environment, check=False).returncode
        exit_code = max(exit_code, ended if ended >= 0 else 128 - ended)  # by a signal: as a shell says it
    raise typer.Exit(exit_code)


def _checked(settings: Settings, image: str) -> int:
    """Whether the image has a record, a file and a pair here. Says what it has not; returns the exit code for that."""
    try:
        recorded, _ = recorded_image(settings.database_url, image)
        settings.model_pair(recorded.environment.pair)
    except NightshiftError as error:
        print(f"nightshift: {printable(str(error))}", file=sys.stderr, flush=True)
        return error.exit_code
    return 0
