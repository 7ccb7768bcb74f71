"""`nightshift web` as people run it: the real command, a real socket."""

import json
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPResponse

import pytest

from producer import local_web
from producer.local_web import LocalWeb
from producer.web.server import serve
from schemas.errors import InputError, UnavailableError
from schemas.settings import Settings
from tests.acceptance.conftest import Commands, wait_until

URL = re.compile(r"the web page is at http://127\.0\.0\.1:(\d+)")


def port_of(commands: Commands) -> int:
    wait_until(lambda: URL.search(commands.log("web")) is not None)
    found = URL.search(commands.log("web"))
    assert found
    return int(found[1])


def connection(port: int) -> HTTPConnection:
    return HTTPConnection("127.0.0.1", port, timeout=60)


def told(stream: HTTPResponse) -> Iterator[tuple[str, dict]]:
    """The events of a stream, until it ends."""
    event = ""
    for line in stream:
        text = line.decode().rstrip("\n")
        if text.startswith("event: "):
            event = text.removeprefix("event: ")
        elif text.startswith("data: "):
            yield event, json.loads(text.removeprefix("data: "))


def test_the_command_serves_until_it_is_stopped_and_lets_listeners_go(
    commands: Commands, forked: dict[str, str]
) -> None:
    process = commands.start("web", "--port", "0", **forked)
    port = port_of(commands)
    with closing(connection(port)) as listening, closing(connection(port)) as asking:
        listening.request("GET", "/api/v1/events")
        with listening.getresponse() as stream:
            events = told(stream)
            asking.request("POST", "/api/v1/manifests?file=storm.tsv", b"Prompt\na lighthouse in a storm\n")
            accepted = json.loads(asking.getresponse().read())
            assert accepted["num_jobs"] == 1
            names = (batch["name"] for event, batch in events if event == "batch" and batch["num_jobs"] == 1)
            assert next(names) == "storm"
            assert commands.answer("status", str(accepted["batch_id"]))["name"] == "storm"

            process.send_signal(signal.SIGTERM)
            assert [event for event, _ in events if event == "batch"] == []  # and the stream ends
    assert process.wait(30) == 0
    assert "Traceback" not in commands.log("web")


# --- what is refused before anything listens -------------------------------------------------------------------------


def test_strangers_are_not_let_in_where_there_is_no_token(sqlite_url: str) -> None:
    with pytest.raises(InputError, match=r"at 0\.0\.0\.0 others can reach the web page, and there is no token"):
        serve(Settings(database_url=sqlite_url), "0.0.0.0", 0)


def test_a_port_that_is_taken_is_said_in_a_sentence(sqlite_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UnavailableError, match=f"cannot listen at 127.0.0.1 port {port}: .*; --port names another"):
            serve(Settings(database_url=sqlite_url), "127.0.0.1", port)


# --- beside `up` -----------------------------------------------------------------------------------------------------


def test_without_its_packages_a_farm_runs_all_the_same(
    commands: Commands, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(local_web, "_PACKAGES", ("a_package_that_nobody_has",))
    with LocalWeb(Settings(home=commands.home)) as page:
        page.tend()
    assert capfd.readouterr().err == "the web page needs packages: pip install 'nightshift[web]'\n"


def test_a_page_that_cannot_be_served_is_said_once_and_stops_nothing(
    commands: Commands, forked: dict[str, str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        variables = {**commands.environment, **forked, "NIGHTSHIFT_WEB_PORT": str(port)}
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        said = ""
        with LocalWeb(Settings(home=commands.home, web_port=port)) as page:

            def tended() -> bool:
                nonlocal said
                page.tend()
                said += capfd.readouterr().err
                return "does not run" in said

            wait_until(tended)
            page.tend()
    assert f"the web page does not run: cannot listen at 127.0.0.1 port {port}" in said
    assert "does not run" not in capfd.readouterr().err
