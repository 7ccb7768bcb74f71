"""`nightshift doctor`."""

import typer

from producer.cli.answers import JsonOption, print_json
from producer.upkeep.doctor import examine
from schemas.settings import load_settings

app = typer.Typer()


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
