"""Which batch is meant, and which pairs are waited for, on a real SQLite."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from farm import batches
from farm.database import Database
from producer.questions.queries import batch_summary, find_batch, waiting_pairs
from schemas.errors import NotFoundError
from schemas.states import PackState
from schemas.tables import Pack
from tests.integration.ledger_farm import new_ledger, open_batch


@pytest.fixture
def database(sqlite_url: str) -> Iterator[Database]:
    with closing(new_ledger(sqlite_url)) as database:
        yield database


def test_a_number_is_a_batchs_number_even_if_another_has_it_as_its_name(database: Database) -> None:
    first = open_batch(database)
    second = batches.create_batch(database, str(first), "tiny", 5)
    assert find_batch(database, str(first)).id == first
    assert batch_summary(database, first).id == first
    assert find_batch(database, str(second)).name == str(first)


def test_a_number_that_no_batch_has_may_be_a_name(database: Database) -> None:
    batch_id = batches.create_batch(database, "2026", "tiny", 5)
    assert find_batch(database, "2026").id == batch_id
    with pytest.raises(NotFoundError, match="no batch 2026"):
        batch_summary(database, 2026)


def test_the_youngest_batch_of_a_name_is_meant(database: Database) -> None:
    open_batch(database)
    youngest = open_batch(database)
    assert find_batch(database, "cats").id == youngest


@pytest.mark.parametrize("text", ["dogs", "7", "9999999999", "", "\udcff", "a\0b", "²"])
def test_what_is_neither_number_nor_name_is_not_found(database: Database, text: str) -> None:
    open_batch(database)
    with pytest.raises(NotFoundError, match="no batch"):
        find_batch(database, text)


def test_the_pairs_of_all_open_batches_are_waited_for_however_old(database: Database) -> None:
    open_batch(database, pair="old")
    for _ in range(25):
        open_batch(database, 1)
    batches.cancel_batch(database, open_batch(database, pair="canceled"))
    batches.create_batch(database, "cats", "staging", 5)
    assert waiting_pairs(database) == {"old", "tiny"}


def test_a_state_stands_in_the_sql_as_it_is_and_is_no_parameter() -> None:
    """Or a prepared statement could not use the indexes that hold the rows of one state."""
    for compared in (Pack.state == PackState.QUEUED, Pack.state.in_((PackState.QUEUED,))):
        compiled = compared.compile()
        assert "'queued'" in str(compiled)
        assert compiled.params == {}
