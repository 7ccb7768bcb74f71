"""What the ledger keeps for the web page: tokens, and which batch came under which key. On both databases."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from farm import batches, ledger
from farm.database import Database
from farm.submissions import earlier_request, note_answer, note_received, num_jobs_left
from farm.tokens import add_token, all_tokens, has_token, revoke_token, token_of
from producer.questions.queries import batch_summaries
from schemas.errors import InputError, LeaseLostError, NotFoundError
from schemas.records import BatchDetails, Received
from schemas.timing import ANY_TIME
from schemas.token import Scope, TokenRights
from tests.integration.ledger_farm import open_batch

RIGHTS = TokenRights(frozenset({Scope.READ, Scope.SUBMIT}), 4, 100)
KEY = "a" * 64


def receive(database: Database, received: Received) -> int:
    return batches.create_batch(database, "rows", "tiny", 5, ANY_TIME, BatchDetails(received=received))


def test_a_token_is_found_by_its_hash_until_it_is_revoked(database: Database) -> None:
    assert not has_token(database)
    token_id = add_token(database, "frontend", "b" * 64, RIGHTS)
    found = token_of(database, "b" * 64)
    assert found is not None
    assert (found.id, found.name, found.rights) == (token_id, "frontend", RIGHTS)
    assert has_token(database)
    revoke_token(database, "frontend")
    assert token_of(database, "b" * 64) is None
    assert not has_token(database)
    assert [token.revoked_at is None for token in all_tokens(database)] == [False]
    with pytest.raises(NotFoundError):
        revoke_token(database, "frontend")
    with pytest.raises(InputError, match="already, or was one"):
        add_token(database, "frontend", "c" * 64, RIGHTS)


def test_of_two_requests_with_a_key_at_once_one_makes_a_batch(database: Database) -> None:
    def one(_: int) -> bool:
        try:
            receive(database, Received(None, KEY, "d" * 64))
        except LeaseLostError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(one, range(4))) == [False, False, False, True]
    assert len(batch_summaries(database, 10)) == 1


def test_an_answer_counts_once_its_batch_is_open(database: Database) -> None:
    assert earlier_request(database, KEY) is None
    batch_id = receive(database, Received(None, KEY, "d" * 64))
    note_answer(database, batch_id, {"batch_id": batch_id})
    staged = earlier_request(database, KEY)
    assert staged is not None
    assert (staged.batch_id, staged.request_sha256, staged.answer) == (batch_id, "d" * 64, None)
    batches.open_batch(database, batch_id)
    opened = earlier_request(database, KEY)
    assert opened is not None
    assert opened.answer == {"batch_id": batch_id}


def test_jobs_are_counted_for_the_token_that_they_came_with(database: Database) -> None:
    token_id = add_token(database, "frontend", "b" * 64, RIGHTS)
    open_batch(database, 3)
    for num_jobs in (2, 4):
        batch_id = open_batch(database, num_jobs)
        with database.begin() as tx:
            note_received(tx, Received(token_id), batch_id)
    assert num_jobs_left(database, token_id) == 6
    ledger.sweep_canceled(database, canceled(database, batch_id))
    assert num_jobs_left(database, token_id) == 2


def canceled(database: Database, batch_id: int) -> int:
    batches.cancel_batch(database, batch_id)
    return batch_id
