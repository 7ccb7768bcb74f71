"""`nightshift doctor`."""

from typing import Annotated

import typer

from producer.cli.answers import JsonOption, print_json
from producer.upkeep.doctor import examine
from schemas.settings import load_settings

app = typer.Typer()


@app.command(epilog="Example: nightshift doctor --pair sdxl")
def doctor(
    pair: Annotated[
        list[str] | None, typer.Option("--pair", help="The pair that workers here pin, as `nightshift worker` has it.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check what a farm needs from this machine, and say what to do. Exit code 3 when something is missing."""
    findings = examine(load_settings(), [given.partition(":")[0] for given in pair or []])
    if as_json:
        print_json([vars(finding) for finding in findings])
    else:
        for finding in findings:
            print(f"{'ok  ' if finding.ok else 'BAD '} {finding.subject}: {finding.sentence}")
    raise typer.Exit(0 if all(finding.ok for finding in findings) else 3)
