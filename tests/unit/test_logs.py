"""What a process's log lines look like, for people and for machines."""

import json
import logging
from collections.abc import Callable, Iterator

import pytest

from farm.logs import about, log_to_stderr
from schemas.settings import Settings

log = logging.getLogger("nightshift.test")


Start = Callable[[Settings, str], None]


@pytest.fixture
def start() -> Iterator[Start]:
    """``log_to_stderr`` on a bare root logger: beside pytest's handlers, ``basicConfig`` would do nothing."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def on_a_bare_logger(settings: Settings, who: str) -> None:
        root.handlers.clear()
        log_to_stderr(settings, who)

    yield on_a_bare_logger
    root.handlers[:] = handlers
    root.setLevel(level)


def test_text_is_a_line_for_people(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    start(Settings(), "100% cuda:0")
    log.info("ready: %s", "waiting")

    said = capsys.readouterr().err
    assert said.endswith(" 100% cuda:0 INFO ready: waiting\n")
    assert said.count("\n") == 1


def test_json_says_which_batch_pack_and_jobs_a_line_is_about(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    start(Settings(log_format="json"), "cuda:0")
    with about(batch=3, pack="a1", jobs=[16]), about(jobs=[17, 18]):
        log.warning("%d jobs failed: out of “memory”\nat a newline", 2)
    log.info("ready")

    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (first["batch"], first["pack"], first["jobs"]) == (3, "a1", [17, 18])
    assert first["message"] == "2 jobs failed: out of “memory”\nat a newline"
    assert (first["level"], first["who"], first["logger"]) == ("warning", "cuda:0", "nightshift.test")
    assert first["time"].endswith("Z")
    assert "pack" not in second


def test_json_keeps_a_traceback_in_its_line(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    start(Settings(log_format="json"), "dispatcher")
    try:
        raise RuntimeError("no room")
    except RuntimeError:
        log.exception("pack failed")

    (line,) = capsys.readouterr().err.splitlines()
    record = json.loads(line)
    assert record["message"] == "pack failed"
    assert record["exception"].startswith("Traceback")
    assert record["exception"].endswith("RuntimeError: no room")


def test_json_hides_a_password_that_json_would_write_otherwise(
    start: Start, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("farm.secrets._known", lambda: ('plan"ted\\é',))
    start(Settings(log_format="json"), "dispatcher")
    log.error('cannot log in with plan"ted\\é')

    assert json.loads(capsys.readouterr().err)["message"] == "cannot log in with ***"
