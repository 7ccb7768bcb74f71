"""`nightshift schedule`: what is refused at once, what is shown, and a firing by hand."""

import json
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from farm import ledger
from nightshift import app, loaded
from producer.questions.queries import batch_summaries
from schemas.errors import InputError, NightshiftError
from tests.integration.ledger_farm import ENVIRONMENT, claimed_pack, images_of, new_ledger, new_worker

NIGHTLY = ("--cron", "0 22 * * 1-5", "--tz", "Europe/Berlin")


def schedule(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["schedule", *arguments])


def refusal(*arguments: str) -> NightshiftError:
    error = schedule(*arguments).exception
    assert isinstance(error, NightshiftError), error
    return error


def listed() -> dict[str, dict]:
    return {one["name"]: one for one in json.loads(schedule("list", "--json").stdout)}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cats.tsv").write_text("Prompt\na cat on {date}\n")
    return tmp_path


def test_a_schedule_says_when_it_fires_and_is_kept_with_what_this_machine_knows(home: Path) -> None:
    added = schedule("add", "nightly", "cats.tsv", *NIGHTLY, "--deadline", "07:00", "--set", "width=512")
    assert added.exit_code == 0
    assert added.stdout.startswith("schedule nightly fires ")
    assert added.stdout.count(" 22:00, ") == 3
    assert added.stdout.endswith("... (Europe/Berlin)\n")
    order = listed()["nightly"]["order"]
    assert (order["manifest"], order["pair"], order["name"]) == (str(home / "cats.tsv"), "tiny", "nightly {date}")
    assert (order["deadline"], order["fields"]) == ("07:00", {"width": "512"})


def test_whatever_submit_takes_a_schedule_takes_as_well(home: Path) -> None:
    submitting, adding = (
        {name for option in command.params for name in option.opts}
        for command in (loaded("submit"), loaded("schedule").commands["add"])
    )
    assert submitting <= adding
    (home / "list").write_text('{"prompt": "a cat on {date}"}\n')
    assert schedule("add", "nightly", "list", *NIGHTLY, "--format", "jsonl").exit_code == 0
    assert schedule("run", "nightly").stdout == "batch 1: 1 job accepted (schedule nightly)\n"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("--cron", "0 0 30 2 *"), "--cron '0 0 30 2 *': bad day-of-month"),
        (("--tz", "Mars/Base"), "there is no time zone 'Mars/Base'"),
        (("--set", "width=1001"), "--set width=1001: is not divisible by 8"),
        (("--deadline", "2026-11-22T07:00Z"), "is no time of the clock"),
        (("--not-before", "08:00", "--deadline", "07:00"), "is not after"),
        (("--window", "22:00"), "names no time zone"),
        (("--pair", "nobody"), "unknown pair 'nobody'"),
        (("--name", "a\x1bb"), "contains a control character"),
    ],
)
def test_what_could_never_be_submitted_is_refused_at_once(change: tuple[str, ...], sentence: str) -> None:
    assert sentence in str(refusal("add", "nightly", "cats.tsv", *NIGHTLY, *change))
    assert listed() == {}


@pytest.mark.parametrize("name", ["", " ", "x" * 101, "a\nb"])
def test_a_name_that_no_list_could_show_is_refused(name: str) -> None:
    assert "the name" in str(refusal("add", name, "cats.tsv", *NIGHTLY))


def test_bad_rows_among_the_first_are_named_at_once_unless_they_may_be_skipped(home: Path) -> None:
    (home / "bad.tsv").write_text("Prompt\tWidth\na cat\t7\na dog\t512\n")
    assert 'bad.tsv:2: column "Width": "7"' in str(refusal("add", "nightly", "bad.tsv", *NIGHTLY))
    assert schedule("add", "nightly", "bad.tsv", *NIGHTLY, "--skip-invalid").exit_code == 0


def test_a_manifest_that_is_not_there_yet_is_said_so_and_what_is_known_of_it_is_checked(home: Path) -> None:
    added = schedule("add", "nightly", "lists/{date}.tsv", *NIGHTLY)
    assert (added.exit_code, f"there is no file {home}/lists/20" in added.stderr) == (0, True)
    assert "--set width=1: " in str(refusal("add", "other", "lists/{date}.tsv", *NIGHTLY, "--set", "width=1"))


def test_a_manifest_that_cannot_be_read_twice_or_carries_a_secret_is_refused() -> None:
    assert "standard input" in str(refusal("add", "nightly", "-", *NIGHTLY))
    secret = refusal("add", "nightly", "https://me:hunter2@host/a.tsv", *NIGHTLY)
    assert isinstance(secret, InputError)
    assert "hunter2" not in str(secret)


def test_a_name_that_is_taken_is_refused_unless_it_is_to_be_replaced() -> None:
    assert schedule("add", "nightly", "cats.tsv", *NIGHTLY).exit_code == 0
    assert "--replace" in str(refusal("add", "nightly", "cats.tsv", *NIGHTLY, "--limit", "1"))
    assert schedule("add", "nightly", "cats.tsv", *NIGHTLY, "--limit", "1", "--replace").exit_code == 0
    assert listed()["nightly"]["order"]["limit"] == 1


def test_a_firing_by_hand_makes_a_batch_of_this_moment_beside_the_line(home: Path) -> None:
    schedule("add", "nightly", "cats.tsv", *NIGHTLY)
    coming = listed()["nightly"]["next_due_at"]
    ran = schedule("run", "nightly")
    assert ran.stdout == "batch 1: 1 job accepted (schedule nightly)\n"
    assert "no farm runs here yet: `nightshift up` renders batch 1" in ran.stderr
    one = listed()["nightly"]
    assert (one["next_due_at"], one["last_firing"]["state"], one["last_firing"]["batch_id"]) == (coming, "done", 1)
    with closing(new_ledger(f"sqlite:///{home / 'home' / 'ledger.sqlite3'}")) as database:
        (batch,) = batch_summaries(database, 9)
    assert batch.origin is not None
    assert batch.name == f"nightly {batch.origin['order']['placeholders']['date']}"
    assert "batch 1 (open)" in " ".join(schedule("list").stdout.split())


def test_the_list_says_when_there_is_none_and_when_the_last_batch_has_ended(home: Path) -> None:
    assert schedule("list").stdout == "no schedules yet; `nightshift schedule add` makes one\n"
    schedule("add", "nightly", "cats.tsv", *NIGHTLY)
    schedule("run", "nightly")
    with closing(new_ledger(f"sqlite:///{home / 'home' / 'ledger.sqlite3'}")) as database:
        pack = claimed_pack(database, 1, new_worker(database))
        ledger.finish_jobs(database, pack, ENVIRONMENT, images_of(pack))
    assert "batch 1 (ended)" in " ".join(schedule("list").stdout.split())
    assert listed()["nightly"]["last_firing"]["batch_ended"] is True


def test_a_firing_by_hand_that_fails_says_why_and_is_not_tried_again(home: Path) -> None:
    schedule("add", "nightly", "lists/{time}.tsv", *NIGHTLY)
    assert "there is no file" in str(refusal("run", "nightly"))
    last = listed()["nightly"]["last_firing"]
    assert (last["state"], last["retry_at"]) == ("failed", None)
    assert "failed: there is no" in " ".join(schedule("list").stdout.split())


def test_a_schedule_is_paused_goes_on_and_is_removed() -> None:
    schedule("add", "nightly", "cats.tsv", *NIGHTLY)
    assert schedule("pause", "nightly").stdout == "schedule nightly is paused\n"
    assert (listed()["nightly"]["paused"], listed()["nightly"]["next_due_at"]) == (True, None)
    assert "schedule nightly fires " in schedule("resume", "nightly").stdout
    assert datetime.fromisoformat(listed()["nightly"]["next_due_at"]) > datetime.now(UTC)
    assert schedule("remove", "nightly").stdout == "schedule nightly is removed; its batches stay\n"
    assert listed() == {}


@pytest.mark.parametrize("command", ["pause", "resume", "run", "remove"])
def test_a_schedule_that_is_not_there_is_said_so(command: str) -> None:
    assert "no schedule 'nobody\\udcff'" in str(refusal(command, "nobody\udcff"))


def test_a_batch_that_somebody_submits_says_how_it_came_to_be_too(home: Path) -> None:
    assert CliRunner().invoke(app, ["submit", "cats.tsv", "--set", "width=512", "--limit", "1"]).exit_code == 0
    status = json.loads(CliRunner().invoke(app, ["status", "1", "--json"]).stdout)
    assert status["origin"]["order"]["manifest"] == str(home / "cats.tsv")
    assert status["origin"]["order"]["fields"] == {"width": "512"}
    assert (status["origin"]["schedule"], status["origin"]["base_seed"]) == (None, "0")
