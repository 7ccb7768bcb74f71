"""`nightshift verify` as an operator runs it: what it prints, and its exit codes."""

import json
import shutil
from contextlib import closing
from datetime import UTC, datetime, timedelta

from tests.acceptance.conftest import Commands
from tests.integration.ledger_farm import new_ledger
from tests.integration.stored_farm import done_batch, image_path, set_time


def test_damage_is_listed_with_exit_code_1_and_orphans_are_cleaned_when_told_to(commands: Commands) -> None:
    images = commands.home / "images"
    with closing(new_ledger(f"sqlite:///{commands.home / 'ledger.sqlite3'}")) as database:
        done_batch(database, str(images), [{}] * 3)
        second = image_path(database, 2)
    orphan = second.with_name(f"{second.stem[:-1]}{'1' if second.stem[-1] == '0' else '0'}.png")
    shutil.copyfile(second, orphan)
    set_time(orphan, datetime.now(UTC) - timedelta(days=2))
    (images / "notes.txt").write_text("mine")
    stored = sum(path.stat().st_size for path in images.rglob("*.png") if path != orphan)

    done = commands.run("verify", "1")
    assert (done.returncode, done.stdout) == (0, f"checked 3 jobs, 3 images, {stored:,} bytes; findings: 0\n")
    assert done.stderr.startswith("verifying: 1 job, 0 images so far")

    done = commands.run("verify")
    assert done.returncode == 1
    note, finding = sorted(done.stdout.splitlines()[:-1], reverse=True)
    assert note == "note: file notes.txt: is none of Nightshift's; it is left alone"
    key = orphan.relative_to(images)
    assert finding == f"file {key}: belongs to no job ({second.stat().st_size:,} bytes); --clean removes it"
    assert done.stdout.splitlines()[-1] == f"checked 3 jobs, 3 images, {stored:,} bytes, 1 orphan; findings: 1"

    assert commands.run("verify", "cats", "--clean").returncode == 2
    done = commands.run("verify", "--clean")
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1].endswith(f"1 orphan (1 removed, {second.stat().st_size:,} bytes); findings: 0")
    assert not orphan.exists()

    second.write_bytes(second.read_bytes()[:100])
    done = commands.run("verify", "cats", "--json")
    assert done.returncode == 1
    finding, counts = map(json.loads, done.stdout.splitlines())
    assert (finding["subject"], finding["code"], finding["is_note"]) == ("job 1/2", "size", False)
    assert (counts["num_jobs"], counts["num_images"], counts["num_findings"]) == (3, 3, 1)


def test_no_such_batch_is_exit_code_2_and_no_store_or_ledger_one_sentence_with_3(commands: Commands) -> None:
    with closing(new_ledger(f"sqlite:///{commands.home / 'ledger.sqlite3'}")) as database:
        done_batch(database, str(commands.home / "images"), [{}] * 3)
    done = commands.run("verify", "7")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no batch '7'" in done.stderr

    (commands.home / "images").rename(commands.home / "away")
    for arguments in (["verify"], ["verify", "1", "--json"]):
        done = commands.run(*arguments)
        assert (done.returncode, done.stdout) == (3, "")
        (sentence,) = (line for line in done.stderr.splitlines() if not line.startswith("verifying: "))
        assert "is empty or not there, and the ledger records images in it" in sentence

    done = commands.run("verify", NIGHTSHIFT_DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert (done.returncode, done.stdout) == (3, "")
    assert "does not answer" in done.stderr
