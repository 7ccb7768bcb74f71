"""One clear sentence and the right exit code, from the real command."""

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from farm import batches, ledger
from farm.schema import head_revision
from tests.acceptance.conftest import Commands
from tests.integration.ledger_farm import new_ledger, staged

DEAD_REDIS = {"NIGHTSHIFT_BROKER_URL": "redis://:hunter2@127.0.0.1:1/0"}
DEAD_DATABASE = {"NIGHTSHIFT_DATABASE_URL": "postgresql://somebody:hunter2@127.0.0.1:1/ledger"}


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("a cat\na dog\n")
    return path


def assert_refused(commands: Commands, code: int, sentence: str, *arguments: str | Path, **variables: str) -> None:
    done = commands.run(*arguments, **variables)
    assert done.returncode == code, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr
    assert commands.processes() == []


@pytest.mark.parametrize("command", ["render", "submit"])
def test_a_missing_manifest(commands: Commands, command: str) -> None:
    assert_refused(commands, 2, "there is no file /no/such.tsv", command, "/no/such.tsv")


def test_an_empty_manifest(commands: Commands, tmp_path: Path) -> None:
    (tmp_path / "empty.tsv").touch()
    assert_refused(commands, 2, "empty.tsv", "submit", tmp_path / "empty.tsv")


def test_a_manifest_without_a_single_good_row(commands: Commands, tmp_path: Path) -> None:
    (tmp_path / "bad.tsv").write_text("Prompt\tWidth\na cat\t7\n")
    assert_refused(commands, 2, "no row of the manifest is valid", "submit", tmp_path / "bad.tsv", "--skip-invalid")
    assert commands.answer("status")["batches"] == []


def test_every_bad_row_is_named_and_nothing_moves_the_terminals_cursor(commands: Commands, tmp_path: Path) -> None:
    lines = {
        '{"prompt": "a", "width": 100000}': 'column "width": "100000": should be less than or equal to 4096',
        '{"prompt": "a", "num_inference_steps": 1000000000}': "should be less than or equal to 999",
        '{"prompt": "a", "guidance_scale": NaN}': 'column "guidance_scale": "NaN": should be a finite number',
        '{"prompt": "a", "guidance_scale": 1e400}': "should be a finite number",
        '{"prompt": "a", "seed": -1}': "is not between 0 and 18446744073709551615",
        '{"prompt": "a", "prompt": "b"}': 'column "prompt": stands twice in one object',
        '{"prompt": "a", "x": '
        + "[" * 10_000
        + "]" * 10_000
        + "}": "the line is nested too deep; 32 levels are the most",
        '{"prompt": "' + "x" * 20_001 + '"}': '(20001 characters)": should have at most 20000 characters',
        '{"prompt": "a", "aspect_ratio": "\\ud800"}': 'column "aspect_ratio": "\\ud800": is not two positive numbers',
        '{"prompt": "a", "\u202e\x9b": NaN}': 'column "\\u202e\\x9b": "NaN": is not a finite number',
        '{"prompt": "a", "loras": [{"name": "\\u001b[31m"}]}': "\\x1b[31m",
        "x" * 1_100_000: "the line is longer than 1 MB",
        '{"prompt": "a"': "the line is not JSON",
    }
    (tmp_path / "bad.jsonl").write_text("\n".join(lines), encoding="utf-8")
    done = commands.run("submit", tmp_path / "bad.jsonl")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    first, *said = done.stderr.splitlines()
    assert first == "nightshift: 13 rows are invalid; nothing was enqueued (--skip-invalid leaves them out)"
    for number, (line, sentence) in enumerate(zip(said, lines.values(), strict=True), 1):
        assert line.startswith(f"{tmp_path}/bad.jsonl:{number}: ")
        assert sentence in line
        assert line.isprintable()
    assert commands.answer("status")["batches"] == []


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.jsonl.gz", b"\x1f\x8b\x08\0", "a.jsonl.gz is not whole: its gzip stream ends early"),
        ("a.csv", "Prompt\n".encode("utf-16-le"), "a.csv is UTF-16 without a byte order mark"),
        ("a.csv", b'Prompt\n"a cat\n', "a.csv:2: the line has a quote that is never closed"),
    ],
)
def test_a_file_that_is_no_manifest(
    commands: Commands, tmp_path: Path, name: str, content: bytes, sentence: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert_refused(commands, 2, sentence, "submit", tmp_path / name)


def test_settings_that_no_reader_could_hold(commands: Commands) -> None:
    (commands.home / "nightshift.toml").write_text("a = " + "[" * 10_000)
    assert_refused(commands, 2, "nightshift.toml: its values are nested too deep", "status")


def test_an_error_about_an_odd_name_is_printable(commands: Commands) -> None:
    done = commands.run("status", NIGHTSHIFT_HOME="/proc/\x1b[31m\u202e")
    assert done.returncode == 3
    assert "/proc/\\x1b[31m\\u202e" in done.stderr
    assert all(line.isprintable() for line in done.stderr.splitlines())


def test_a_terminal_without_the_letters_gets_their_numbers(commands: Commands) -> None:
    done = commands.run("show", "docs/contact-sheet.png", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "\\xd7" in done.stdout


def test_an_unknown_pair(commands: Commands, prompts: Path) -> None:
    assert_refused(
        commands, 2, "unknown pair 'juggernaut'; known are full, sdxl, tiny", "submit", prompts, "--pair", "juggernaut"
    )


def test_an_option_that_is_no_key_and_value(commands: Commands, prompts: Path) -> None:
    assert_refused(commands, 2, "--set takes key=value, not 'width'", "submit", prompts, "--set", "width")


def test_an_unknown_setting(commands: Commands) -> None:
    assert_refused(commands, 2, "unknown setting NIGHTSHIFT_LEASE", "status", NIGHTSHIFT_LEASE="5")


def test_an_unknown_batch(commands: Commands) -> None:
    assert_refused(commands, 2, "no batch '7'", "status", "7")


def test_an_unknown_command(commands: Commands) -> None:
    by_hand = subprocess.run(
        [sys.executable, "-m", "nightshift", "rendre"], env=commands.environment, capture_output=True, text=True
    )
    assert by_hand.returncode == 2
    assert "No such command 'rendre'" in by_hand.stderr
    done = commands.run("rendre")
    assert (done.returncode, done.stdout) == (2, by_hand.stdout)


@pytest.mark.parametrize("command", ["status", "watch", "dispatcher", "worker", "up"])
def test_a_database_that_does_not_answer(commands: Commands, command: str) -> None:
    assert_refused(commands, 3, "does not answer", command, **DEAD_DATABASE)


@pytest.mark.parametrize("command", ["dispatcher", "worker", "up"])
def test_a_redis_that_does_not_answer(commands: Commands, command: str) -> None:
    assert_refused(commands, 3, "Redis at redis://:***@127.0.0.1:1/0 does not answer", command, **DEAD_REDIS)


def test_render_refuses_to_begin_without_its_redis(commands: Commands, prompts: Path) -> None:
    assert_refused(commands, 3, "does not answer", "render", prompts, **DEAD_REDIS)
    assert commands.answer("status")["batches"] == []


def test_what_was_submitted_without_redis_is_safe_and_says_so(commands: Commands, prompts: Path) -> None:
    assert_refused(commands, 3, "batch 1 is safe in the ledger", "submit", prompts, **DEAD_REDIS)
    (batch,) = commands.answer("status")["batches"]
    assert (batch["num_jobs"], batch["state"]) == (2, "open")


def test_a_submit_before_the_farm_runs_is_all_well(commands: Commands, prompts: Path) -> None:
    done = commands.run("submit", prompts)
    assert done.returncode == 0
    assert "`nightshift up` renders batch 1" in done.stderr


def test_an_image_store_that_cannot_be_written_stops_the_worker_with_a_sentence(
    commands: Commands, prompts: Path
) -> None:
    assert_refused(
        commands, 3, "image store file:///proc/images cannot be written", "render", prompts,
        NIGHTSHIFT_IMAGES_URL="file:///proc/images",
    )  # fmt: skip


def test_a_home_that_cannot_be_written(commands: Commands, prompts: Path) -> None:
    assert_refused(commands, 3, "cannot make the folder", "render", prompts, NIGHTSHIFT_HOME="/proc/nightshift")


def test_pairs_are_listed_with_their_licences(commands: Commands) -> None:
    pairs = {pair["name"]: pair for pair in commands.answer("pairs")}
    assert pairs["sdxl"]["license"] == "CreativeML Open RAIL++-M"
    assert set(pairs) == {"tiny", "full", "sdxl"}


def test_the_doctor_is_well_on_a_fresh_machine(commands: Commands) -> None:
    findings = {finding["subject"]: finding for finding in commands.answer("doctor")}
    assert {"ledger", "redis", "image store", "disk", "pair"} <= findings.keys()


def test_the_doctor_says_what_is_wrong(commands: Commands) -> None:
    done = commands.run("doctor", **DEAD_REDIS)
    assert done.returncode == 3
    assert "BAD  redis: Redis at redis://:***@127.0.0.1:1/0 does not answer" in done.stdout


def test_a_batch_that_a_killed_submit_left_behind_is_discarded_by_cancel(commands: Commands) -> None:
    with closing(new_ledger(f"sqlite:///{commands.home / 'ledger.sqlite3'}")) as database:
        for _ in range(2):
            ledger.stage_jobs(database, batches.create_batch(database, "cats", "tiny", 5), [staged(1)])
    done = commands.run("cancel", "2")
    assert (done.returncode, done.stdout) == (0, "batch 2 was never opened; it is discarded with its 1 job\n")
    assert commands.answer("cancel", "cats")["state"] == "discarded"
    assert commands.answer("status")["batches"] == []


def test_a_canceled_batch_may_be_canceled_again_and_not_retried(commands: Commands, prompts: Path) -> None:
    commands.run("submit", prompts)
    for _ in range(2):
        assert commands.answer("cancel", "1")["num_canceled"] == 2
    assert_refused(commands, 2, "batch 1 is neither open nor paused", "retry", "1")


@pytest.mark.parametrize("command", ["render", "submit"])
def test_a_name_that_no_terminal_could_show(commands: Commands, prompts: Path, command: str) -> None:
    sentence = '--name "a\\x1b[31m\\udcffb": contains half a surrogate pair'
    assert_refused(commands, 2, sentence, command, prompts, "--name", "a\x1b[31m\udcffb")


def test_a_batch_of_a_manifest_with_an_odd_name_can_be_named(commands: Commands, tmp_path: Path) -> None:
    odd = tmp_path / "a\x1b[31m\udcff.txt"
    odd.write_text("a cat\n")
    assert commands.run("submit", odd).returncode == 0
    assert commands.answer("status")["batches"][0]["name"] == "a\\x1b[31m\\udcff"
    assert_refused(commands, 2, "no batch", "status", "\udcff")


def test_a_table_of_pairs_shows_what_the_file_says(commands: Commands) -> None:
    (commands.home / "nightshift.toml").write_text(
        '[pairs.mine]\nbase = { source = "/a[red]b" }\nlicense = "free\\u001b[31m[bold]"\n'
        'offload = "model"\nvae = { source = "/vae" }\nvae_tiling = true\n'
        'textual_inversions = [{ source = "/x.safetensors", token = "<x>" }]\n'
    )
    shown = commands.run("pairs", COLUMNS="200").stdout
    assert "/a[red]b" in shown
    assert "free\\x1b[31m[bold]" in shown
    assert "vae=/vae vae_tiling=True offload=model <x>" in shown


def test_the_upgrade_answers_in_json(commands: Commands) -> None:
    assert commands.answer("db", "upgrade") == {
        "ledger": f"sqlite:///{commands.home / 'ledger.sqlite3'}",
        "revision": head_revision(),
    }


def test_cancel_and_retry_answer_in_json(commands: Commands, prompts: Path) -> None:
    commands.run("submit", prompts)
    assert commands.answer("retry", "1") == {"batch_id": 1, "num_retried": 0}
    assert commands.answer("cancel", "prompts")["num_canceled"] == 2
    assert commands.run("status", "1").returncode == 0
