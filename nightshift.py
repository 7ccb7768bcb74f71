"""The front door: the ``nightshift`` command, with the commands of producer and worker."""

import io
import sys

import typer

from farm.secrets import hide_in_tracebacks
from producer.cli.app import app as producer_app
from schemas.errors import NightshiftError
from schemas.printable import printable
from worker.cli import app as worker_app

app = typer.Typer(
    name="nightshift",
    help="Renders SDXL images in bulk, unattended: base and refiner, on every GPU you have, all night.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.registered_commands += producer_app.registered_commands + worker_app.registered_commands
app.registered_groups += producer_app.registered_groups


def main() -> None:
    """Exit codes: 0 all well, 1 some jobs failed, 2 bad usage or input, 3 broker or database not reachable."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a prompt may have what the terminal's encoding has not
    hide_in_tracebacks()
    try:
        typer.main.get_command(app)()  # app() would put typer's own printing of tracebacks in the place of ours
    except NightshiftError as error:
        print("nightshift: " + "\n".join(map(printable, str(error).split("\n"))), file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("nightshift: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
