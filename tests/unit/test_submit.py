"""Submitting: a batch is accepted whole, or nothing of it stays."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from farm import batches
from farm.database import Database
from producer.manifests.manifest import BadRow, ReadOptions, Row, read_manifest
from producer.questions.queries import batch_summaries, batch_summary
from producer.submitting.submit import CHUNK, BatchRequest, submit
from schemas.errors import DatabaseUnavailableError, InputError, ManifestError
from schemas.spec import JobSpec
from schemas.written_spec import SpecKind
from tests.integration.ledger_farm import new_ledger

KIND = SpecKind(JobSpec.parse({"prompt": "cat", "seed": 0}))
BAD = BadRow("prompts.tsv", 3, "Width", "7", "is too small")


@pytest.fixture
def database(sqlite_url: str) -> Iterator[Database]:
    with closing(new_ledger(sqlite_url)) as database:
        yield database


@pytest.fixture
def skipping(tmp_path: Path) -> BatchRequest:
    return BatchRequest("cats", "tiny", invalid_folder=tmp_path / "invalid")


def rows(num: int) -> Iterator[Row | BadRow]:
    return (Row(n, KIND.written("cat", n), 0, {}) for n in range(num))


def interrupted(num: int) -> Iterator[Row | BadRow]:
    yield BAD
    yield from rows(num)
    raise KeyboardInterrupt


def test_an_interrupted_submit_leaves_nothing(database: Database, skipping: BatchRequest, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        submit(database, interrupted(CHUNK + 1), skipping)
    assert batch_summaries(database, 9) == []


def test_a_batch_that_may_skip_rows_is_not_open_before_its_end(database: Database, skipping: BatchRequest) -> None:
    seen = []

    def watched() -> Iterator[Row | BadRow]:
        yield from rows(CHUNK + 1)
        seen.append(batch_summaries(database, 1)[0])

    accepted = submit(database, watched(), skipping)
    assert [(batch.state, batch.num_jobs) for batch in seen] == [("staging", CHUNK)]
    assert batch_summary(database, accepted.batch_id).state == "open"
    assert accepted.num_jobs == batch_summary(database, accepted.batch_id).num_jobs == CHUNK + 1


def test_a_lost_answer_at_the_opening_says_that_the_batch_may_be_accepted(
    database: Database, skipping: BatchRequest, tmp_path: Path
) -> None:
    file, away = tmp_path / "ledger.sqlite3", tmp_path / "away"

    def lose_the_ledger() -> Iterator[Row | BadRow]:
        yield from rows(CHUNK)
        database.close()
        file.rename(away)
        file.mkdir()

    with pytest.raises(DatabaseUnavailableError, match="batch 1 may have been accepted: `nightshift status 1` tells"):
        submit(database, lose_the_ledger(), skipping)
    file.rmdir()
    away.rename(file)
    assert batch_summary(database, 1).num_jobs == CHUNK


def test_a_batch_that_is_discarded_while_its_rows_are_read_is_said_in_a_sentence(
    database: Database, skipping: BatchRequest
) -> None:
    def discarded() -> Iterator[Row | BadRow]:
        yield from rows(CHUNK + 1)
        batches.discard_batch(database, 1)

    with pytest.raises(InputError, match="batch 1 was canceled while its rows were read"):
        submit(database, discarded(), skipping)


def test_the_list_of_invalid_rows_is_of_this_batch_alone(
    database: Database, skipping: BatchRequest, tmp_path: Path
) -> None:
    old = tmp_path / "invalid" / "batch-1.txt"
    old.parent.mkdir()
    old.write_text("of a batch that was discarded\n")
    accepted = submit(database, iter([*[BAD] * 2_500, *rows(1)]), skipping)
    assert accepted.invalid_file == old
    assert old.read_text() == f"{BAD}\n" * 2_500


@pytest.mark.parametrize("error", [ManifestError, KeyboardInterrupt])
def test_the_list_of_invalid_rows_goes_with_its_batch(
    database: Database, skipping: BatchRequest, tmp_path: Path, error: type[BaseException]
) -> None:
    unfit = interrupted(0) if error is KeyboardInterrupt else iter([BAD])
    many = iter([*[BAD] * 1_500])
    with pytest.raises(error):
        submit(database, (row for part in (many, unfit) for row in part), skipping)
    assert list((tmp_path / "invalid").iterdir()) == []


def test_a_seed_that_another_row_derives_loses_no_job(database: Database, tmp_path: Path) -> None:
    manifest = tmp_path / "prompts.tsv"
    manifest.write_text("Prompt\na cat\n")
    [derived] = read_manifest(manifest, ReadOptions())
    assert isinstance(derived, Row)
    manifest.write_text(f"Prompt\tSeed\na cat\t\na cat\t{derived.spec.seed}\n")
    accepted = submit(database, read_manifest(manifest, ReadOptions()), BatchRequest("cats", "tiny"))
    assert batch_summary(database, accepted.batch_id).num_jobs == accepted.num_jobs == 2
