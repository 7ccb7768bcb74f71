"""`nightshift web`."""

from typing import Annotated

import typer

from farm.logs import log_to_stderr
from producer.local_web import require_web_extra
from schemas.settings import load_settings

app = typer.Typer()


@app.command(epilog="Example: nightshift web --port 8470")
def web(
    host: Annotated[str, typer.Option(help="Where to listen; others than this machine need tokens.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Else the setting's, 8470.")] = None,
) -> None:
    """Serve the web page and the API until stopped. Nothing is rendered here."""
    settings = load_settings()
    require_web_extra()
    log_to_stderr(settings, "web")
    from producer.web.server import serve  # noqa: PLC0415  no other command needs the web packages

    serve(settings, host, settings.web_port if port is None else port)
