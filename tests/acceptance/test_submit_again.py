"""A submit that was interrupted, and the same manifest submitted again: nothing is lost, and nothing is doubled."""

import json
import os
import signal
import threading
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest
from sqlalchemy import func, select

from farm.database import Database
from producer.submitting.submit import CHUNK
from schemas.tables import Batch, Job
from tests.acceptance.conftest import WAIT_SECONDS, Commands

NUM_ROWS = 3 * CHUNK // 2


@pytest.fixture
def lines() -> list[str]:
    """Half of them without a seed, and some twice."""
    rows = [{"prompt": f"cat {n % (NUM_ROWS - 500)}", **({"seed": n} if n % 2 else {})} for n in range(NUM_ROWS)]
    return [f"{json.dumps(row)}\n" for row in rows]


def num_staged(url: str) -> int:
    with closing(Database(url)) as database, database.begin(read_only=True) as tx:
        return tx.execute(select(func.count()).select_from(Job)).scalar_one()


def interrupt_half_way(commands: Commands, pipe: Path, lines: list[str], signal_number: int, url: str) -> None:
    """The manifest is a pipe that gives three quarters of its lines and stays open: the command waits for the rest."""
    os.mkfifo(pipe)
    ended = threading.Event()

    def write() -> None:
        with suppress(BrokenPipeError), open(pipe, "w", encoding="utf-8") as stream:
            stream.writelines(lines[: 3 * NUM_ROWS // 4])
            stream.flush()
            ended.wait(WAIT_SECONDS)

    writer = threading.Thread(target=write)
    process = commands.start("submit", pipe)
    writer.start()
    deadline = time.monotonic() + WAIT_SECONDS
    while not num_staged(url):
        assert process.poll() is None, commands.log("submit")
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal_number)
    process.wait(WAIT_SECONDS)
    ended.set()
    writer.join()


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGKILL])
def test_a_submit_that_is_interrupted_may_be_repeated(
    commands: Commands, tmp_path: Path, lines: list[str], signal_number: int
) -> None:
    commands.answer("status")  # makes the ledger
    url = f"sqlite:///{commands.home / 'ledger.sqlite3'}"
    interrupt_half_way(commands, tmp_path / "half.jsonl", lines, signal_number, url)
    assert ("the rows so far are taken back" in commands.log("submit")) == (signal_number == signal.SIGINT)
    manifest = tmp_path / "prompts.jsonl"
    manifest.write_text("".join(lines))
    accepted = commands.answer("submit", manifest)
    with closing(Database(url)) as database, database.begin(read_only=True) as tx:
        states = {row.id: row.state for row in tx.execute(select(Batch.id, Batch.state))}
        jobs = tx.execute(select(Job.spec_digest, Job.repeat).where(Job.batch_id == accepted["batch_id"])).all()
    # Of the one that was killed nothing is ever released; who was interrupted has taken it back.
    assert sorted(states.values()) == (["open"] if signal_number == signal.SIGINT else ["open", "staging"])
    assert states[accepted["batch_id"]] == "open"
    assert len(set(jobs)) == len(jobs) == accepted["num_jobs"] == NUM_ROWS
