"""The control plane's commands, mounted by the front door."""

import typer

from producer.cli import (
    change,
    export,
    failures,
    farm,
    gc,
    grid,
    order,
    plan,
    render,
    report,
    schedule,
    show,
    show_file,
    sizes,
    submit,
    token,
    verify,
    web,
)

app = typer.Typer()
_MODULES = (
    render, grid, plan, submit, show, report, show_file, failures, verify, gc, export, change, order, schedule, farm,
    sizes, web, token,
)  # fmt: skip
for module in _MODULES:
    app.registered_commands += module.app.registered_commands
    app.registered_groups += module.app.registered_groups
