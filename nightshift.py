"""The front door: the ``nightshift`` command, with the commands of producer and worker."""

import gc
import io
import sys
from importlib import import_module
from types import MappingProxyType
from typing import Any, Final

import typer
from typer.core import TyperGroup

from farm.secrets import hide_in_tracebacks
from schemas.errors import NightshiftError
from schemas.printable import printable

#: where each command lives, and what the overview says of it; its own help says more
COMMANDS: Final = MappingProxyType(
    {
        "render": ("producer.cli.render", "Render a manifest here and now, starting what is missing."),
        "grid": ("producer.cli.grid", "Render each row with one or two fields varied, side by side at one seed."),
        "plan": ("producer.cli.plan", "Say what submitting a manifest would come to; enqueue nothing."),
        "submit": ("producer.cli.submit", "Put a manifest's jobs into the ledger."),
        "status": ("producer.cli.show", "Show the night so far, or one batch."),
        "watch": ("producer.cli.watch", "Follow batches until they have ended."),
        "report": ("producer.cli.report", "Write one HTML file about a batch."),
        "show": ("producer.cli.show_file", "Show what image files say of how they were made."),
        "reproduce": ("worker.cli", "Render recorded images again and compare."),
        "failures": ("producer.cli.failures", "List the failed jobs of a batch, each with its reason."),
        "verify": ("producer.cli.verify", "Check every job, row and image file, and list what is wrong."),
        "gc": ("producer.cli.gc", "List what can be removed, and why; --yes removes it."),
        "export": ("producer.cli.export", "Make a dataset of batches' images: imagefolder, WebDataset, Parquet, CSV."),
        "cancel": ("producer.cli.change", "Cancel what is left of a batch."),
        "retry": ("producer.cli.change", "Give the failed jobs of a batch another try."),
        "pause": ("producer.cli.order", "Begin nothing more of a batch until it is resumed."),
        "resume": ("producer.cli.order", "Go on with a batch that was paused."),
        "reprioritise": ("producer.cli.order", "Put a batch before or behind others."),
        "schedule": ("producer.cli.schedule", "What is submitted again and again, by a cron line."),
        "up": ("producer.cli.farm", "Run a farm on this machine until Ctrl-C."),
        "web": ("producer.cli.web", "Serve the web page and the API until stopped."),
        "token": ("producer.cli.token", "Who may ask the web page for what."),
        "dispatcher": ("producer.cli.farm", "Release packs to the workers until stopped."),
        "worker": ("worker.cli", "Render packs of one pair, one process per device, until stopped."),
        "drain": ("producer.cli.drain", "Let workers finish what they have in hand, and begin nothing more."),
        "pairs": ("producer.cli.pairs", "List the pairs that can be named with --pair."),
        "sizes": ("producer.cli.sizes", "List the sizes that SDXL was trained at."),
        "doctor": ("producer.cli.doctor", "Check what a farm needs from this machine, and say what to do."),
        "db": ("producer.cli.db", "The ledger's tables."),
    }
)


class _Commands(TyperGroup):
    """Imports a command when it is called: all of them are two seconds of imports, most of them a few tenths."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] in COMMANDS:
            self.commands[args[0]] = loaded(args[0])
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="nightshift",
    cls=_Commands,
    help="Renders SDXL images in bulk, unattended: base and refiner, on every GPU you have, all night.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def loaded(name: str) -> Any:
    """The command, or group of commands, of this name. Imports what it needs."""
    gc.disable()  # what is imported stays: to look for garbage among it takes a tenth of the time
    try:
        return typer.main.get_group(import_module(COMMANDS[name][0]).app).commands[name]
    finally:
        gc.enable()


def _line_of_the_overview() -> None:
    """Stands for each command until it is called."""


for _name, (_, _line) in COMMANDS.items():
    app.command(_name, help=_line)(_line_of_the_overview)


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
