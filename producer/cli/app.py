"""The control plane's commands, mounted by the front door."""

import typer

from producer.cli import change, export, failures, farm, grid, order, render, show, show_file, sizes, submit, verify

app = typer.Typer()
for module in (render, grid, submit, show, show_file, failures, verify, export, change, order, farm, sizes):
    app.registered_commands += module.app.registered_commands
    app.registered_groups += module.app.registered_groups
