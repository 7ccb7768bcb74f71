"""`nightshift report`."""

from pathlib import Path
from typing import Annotated

import typer

from producer.cli.answers import JsonOption, print_json
from producer.cli.session import open_session
from producer.questions.queries import find_batch
from producer.reports.report import write_report
from producer.reports.report_samples import MAX_SAMPLES

app = typer.Typer()

BatchArgument = Annotated[str, typer.Argument(help="Number or name of a batch.")]
OutOption = Annotated[
    Path | None, typer.Option("--out", help="The file to write; else report-BATCH.html below the home folder.")
]
SamplesOption = Annotated[
    int, typer.Option("--samples", min=0, max=MAX_SAMPLES, help="How many pictures to show, spread over the batch.")
]


@app.command(epilog="Example: nightshift report 3 --out report.html")
def report(batch: BatchArgument, out: OutOption = None, num_samples: SamplesOption = 24, as_json: JsonOption = False
           ) -> None:  # fmt: skip
    """Write one HTML file about a batch, ended or not: counts, failures, throughput, devices, samples, provenance."""
    with open_session() as session:
        summary = find_batch(session.database, batch)
        path = out or session.settings.home / "reports" / f"report-{summary.id}.html"
        written = write_report(session.database, summary, path, num_samples, session.settings.window)
    if as_json:
        print_json({"report": path, **written.batch.as_json()})
        return
    so_far = "" if written.batch.ended else " so far"
    print(f"{path}: {written.batch.num_done:,} of {written.batch.num_jobs:,} done{so_far}")
