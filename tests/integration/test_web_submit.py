"""Submitting over HTTP: the same rules as `nightshift submit`, within what a token may, and once for each key."""

import gzip
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update
from starlette.testclient import TestClient

from farm import batches
from farm.image_store import ImageStore
from producer.web.app import web_app
from producer.web.farm import WebFarm
from schemas.states import BatchState
from schemas.tables import Batch, Job
from schemas.token import Scope
from schemas.web_tables import SubmissionRow
from tests.integration.played_worker import render
from tests.integration.web_client import HERE, web_client
from tests.integration.web_farm import FarmWithPage, farm_with_page

ROWS = "/api/v1/batches"
MANIFESTS = "/api/v1/manifests"
TSV = b"Prompt\tWidth\tmood\na cat\t512\thappy\na dog\t\t\n"


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarmWithPage]:
    with farm_with_page(tmp_path_factory.mktemp("web"), web_max_jobs=50, web_body_bytes=10_000) as farm:
        yield farm


@pytest.fixture(scope="module")
def client(farm: FarmWithPage) -> Iterator[TestClient]:
    with farm.client(peer=HERE) as client:
        yield client


def rows(num: int, mark: str = "cat") -> list[dict[str, Any]]:
    return [{"prompt": f"{mark} {n}"} for n in range(num)]


# --- what is accepted ------------------------------------------------------------------------------------------------


def test_rows_become_a_batch_that_is_treated_as_it_says(client: TestClient) -> None:
    row = {"prompt": "a lighthouse", "seed": 2**64 - 1, "mood": "calm", "refiner": {"start": 0.9}}
    treated = {"name": "lights", "priority": 7, "weight": 2, "window": "22:00-06:00 UTC", "defaults": {"width": 512}}
    order = {"rows": [row], **treated}
    answer = client.post(ROWS, json=order)
    accepted = answer.json()
    assert (answer.status_code, accepted["num_jobs"]) == (201, 1)
    assert answer.headers["location"] == f"/api/v1/batches/{accepted['batch_id']}"
    batch = client.get(answer.headers["location"]).json()
    assert [batch[name] for name in ("name", "priority", "weight", "window", "state")] == [
        "lights", 7, 2.0, "22:00-06:00 UTC", "open",
    ]  # fmt: skip
    job = client.get(f"{answer.headers['location']}/jobs/1").json()
    assert job["spec"]["seed"] == "18446744073709551615"
    assert (job["spec"]["width"], job["spec"]["refiner"], job["meta"]) == (512, {"start": 0.9}, {"mood": "calm"})


@pytest.mark.parametrize(("name", "content"), [("prompts.tsv", TSV), ("prompts.tsv.gz", gzip.compress(TSV, mtime=0))])
def test_a_manifest_is_taken_as_it_is(client: TestClient, name: str, content: bytes) -> None:
    answer = client.post(
        MANIFESTS, params={"file": name, "set": "height=768", "map": "mood=negative_prompt"}, content=content
    )
    location = answer.headers["location"]
    assert client.get(location).json()["name"] == "prompts"
    specs = [job["spec"] for job in client.get(f"{location}/jobs").json()["items"]]
    assert [(spec["prompt"], spec["height"]) for spec in specs] == [("a cat", 768), ("a dog", 768)]
    assert (specs[0]["width"], specs[0]["negative_prompt"]) == (512, "happy")


def test_a_manifest_comes_in_pieces_and_is_never_whole_in_memory(client: TestClient, farm: FarmWithPage) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"Prompt\n"
        for n in range(40):
            yield f"piece {n} {'x' * 1000}\n".encode()  # in all more than what a body in memory may have

    answer = client.post(MANIFESTS, params={"file": "pieces.tsv"}, content=pieces())
    assert answer.json()["num_jobs"] == 40


# --- what is refused -------------------------------------------------------------------------------------------------


def test_bad_rows_are_named_by_line_column_and_reason_and_nothing_is_enqueued(
    client: TestClient, farm: FarmWithPage
) -> None:
    before = farm.num_batches
    answer = client.post(MANIFESTS, params={"file": "bad.tsv"}, content=b"Prompt\tWidth\na\t512\nb\t1001\n\t512\n")
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["num_errors"]) == (422, "manifest", 2)
    assert problem["errors"][0] == {
        "line": 3, "column": "Width", "value": "1001",
        "reason": "is not divisible by 8; the nearest sides are 1000 and 1008",
    }  # fmt: skip
    assert [error["line"] for error in problem["errors"]] == [3, 4]
    assert farm.num_batches == before


def test_bad_rows_may_be_left_out_and_are_told_all_the_same(client: TestClient) -> None:
    order = {"rows": [{"prompt": "x"}, {"prompt": ""}], "skip_invalid": True}
    accepted = client.post(ROWS, json=order).json()
    assert (accepted["num_jobs"], accepted["num_left_out"]) == (1, 1)
    assert accepted["left_out"][0]["line"] == 2


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ({"rows": []}, "body.rows"),
        ({"rows": [{"prompt": "x"}], "priority": 10}, "body.priority"),
        ({"rows": [{"prompt": "x"}], "templates": "some"}, "body.templates"),
        ({"rows": [{"prompt": "x"}], "wildcards": {"a": ["b"]}}, "without --templates"),
        ({"rows": [{"prompt": "x"}], "templates": "all", "wildcards": {"../a": ["b"]}}, "wildcard"),
        ({"rows": [{"prompt": "x"}], "templates": "all", "wildcards": "/etc"}, "body.wildcards"),
        ({"rows": [{"prompt": "x"}], "templates": "all", "wildcards": {"a": []}}, "one at the least"),
        ({"rows": [{"prompt": "__passwd__"}], "templates": "all"}, "wrong rows: 1"),
        ({"rows": [{"prompt": "x"}], "sweep": ["nothing=1,2"]}, "there is no field"),
        ({"rows": [{"prompt": "x"}], "sweep": ["seed=1,2"], "zipped": True}, "--zip"),
        ({"rows": [{"prompt": "x"}], "sweep": [f"seed={n}" for n in range(9)]}, "body.sweep"),
        ({"rows": [{"prompt": "x"}], "count": 0}, "body.count"),
        ({"rows": [{"prompt": "x"}], "base_seed": str(2**64)}, "base_seed"),
        ({"rows": [{"prompt": "x"}], "pair": "nobody"}, "unknown pair"),
        ({"rows": [{"prompt": "x"}], "window": "whenever"}, "whenever"),
        ({"rows": [{"prompt": "x"}], "deadline": "0001-01-01T00:00+14:00"}, ""),
        ({"rows": [{"prompt": "x"}], "name": "a\nb"}, "control character"),
        ({"rows": [{"prompt": "x"}], "defaults": {"width": [1]}}, "width"),
        ({"rows": [{"prompt": "x", "init_image": "http://169.254.169.254/latest"}]}, "wrong rows: 1"),
        ({"rows": [{"prompt": "x", "init_image": "file:///etc/passwd"}]}, "wrong rows: 1"),
        ({"rows": [{"prompt": "x", "init_image": "../../../../etc/passwd"}]}, "wrong rows: 1"),
        ({"rows": [{"prompt": "x", "loras": "../../secret"}]}, "wrong rows: 1"),
    ],
)
def test_what_submit_refuses_is_refused_here(client: TestClient, farm: FarmWithPage, order: Any, said: str) -> None:
    before = farm.num_batches
    answer = client.post(ROWS, json=order)
    assert answer.status_code == 422
    assert said in answer.json()["detail"]
    assert farm.num_batches == before


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'{"rows": [{"prompt": "\\ud800"}]}', b"[" * 5_000, b"\xff", b'{"rows": 1e999}'],
)
def test_a_body_that_is_none_is_refused(client: TestClient, content: bytes) -> None:
    answer = client.post(ROWS, content=content, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


@pytest.mark.parametrize("order", [{"rows": rows(51)}, {"rows": [{"prompt": "x", "count": 51}]}])
def test_a_request_has_so_many_jobs_and_no_more(client: TestClient, farm: FarmWithPage, order: Any) -> None:
    before = farm.num_batches
    answer = client.post(ROWS, json=order)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_many_jobs")
    assert farm.num_batches == before
    assert client.post(ROWS, json={"rows": rows(50, "most")}).json()["num_jobs"] == 50


def test_a_body_is_what_the_route_takes_and_no_larger_than_it_may_be(client: TestClient, farm: FarmWithPage) -> None:
    assert client.post(ROWS, content=b"x", headers={"content-type": "text/plain"}).status_code == 415
    assert client.post(MANIFESTS, params={"file": "a.txt"}, files={"a": b"x"}).status_code == 415
    assert client.post(ROWS, json={"rows": [{"prompt": "x" * 11_000}]}).json()["code"] == "too_large"


def test_an_upload_ends_where_it_has_more_bytes_than_it_may(tmp_path: Path) -> None:
    with farm_with_page(tmp_path, web_upload_bytes=1_000) as farm, farm.client(peer=HERE) as client:
        for content in (b"a cat\n" * 200, iter([b"a cat\n" * 100] * 2)):
            answer = client.post(MANIFESTS, params={"file": "a.txt"}, content=content)
            assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


@pytest.mark.parametrize(
    "file", ["../../etc/passwd", "/etc/passwd", "..", "a/b.tsv", "a.exe", "\0.tsv", "-", "http://x/y.tsv"]
)
def test_a_files_name_is_a_name_and_never_a_place(client: TestClient, file: str, tmp_path: Path) -> None:
    answer = client.post(MANIFESTS, params={"file": file}, content=b"Prompt\nsent by hand\n")
    if answer.status_code == 201:  # what was sent is what is read
        assert client.get(f"{answer.headers['location']}/jobs/1").json()["spec"]["prompt"] == "sent by hand"
    else:
        assert answer.status_code == 422
        assert "nightshift-upload" not in answer.text


# --- once ------------------------------------------------------------------------------------------------------------


def test_the_same_key_and_request_make_one_batch_also_after_a_restart(farm: FarmWithPage) -> None:
    key, order = {"Idempotency-Key": "once"}, {"rows": rows(3, "once")}
    with farm.client(peer=HERE) as client:
        first = client.post(ROWS, json=order, headers=key)
        again = client.post(ROWS, json=order, headers=key)
    with closing(WebFarm.open(farm.page.settings)) as restarted, web_client(web_app(restarted), HERE) as client:
        later = client.post(ROWS, json=order, headers=key)
        other = client.post(ROWS, json={"rows": rows(2, "once")}, headers=key)
    assert first.json() == again.json() == later.json()
    assert {answer.status_code for answer in (first, again, later)} == {201}
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key")


def test_a_key_covers_all_that_is_asked_of_a_manifest(client: TestClient) -> None:
    key, query = {"Idempotency-Key": "manifest"}, {"file": "a.txt"}
    first = client.post(MANIFESTS, params=query, content=b"a cat", headers=key)
    assert client.post(MANIFESTS, params=query, content=b"a cat", headers=key).json() == first.json()
    assert client.post(MANIFESTS, params={**query, "priority": 6}, content=b"a cat", headers=key).status_code == 422
    assert client.post(MANIFESTS, params=query, content=b"a dog", headers=key).status_code == 422


def test_two_tokens_may_use_the_same_key(farm: FarmWithPage) -> None:
    made = []
    for _ in range(2):
        with farm.client(farm.token(Scope.SUBMIT)) as client:
            answer = client.post(ROWS, json={"rows": rows(1, "shared")}, headers={"Idempotency-Key": "shared"})
            made.append(answer.json()["batch_id"])
    assert len(set(made)) == 2


def test_what_was_refused_leaves_its_key_free(client: TestClient) -> None:
    key = {"Idempotency-Key": "mended"}
    assert client.post(ROWS, json={"rows": [{"prompt": ""}]}, headers=key).status_code == 422
    assert client.post(ROWS, json={"rows": [{"prompt": "mended"}]}, headers=key).status_code == 201


def test_a_request_in_hand_holds_its_key_until_it_is_dead(farm: FarmWithPage, client: TestClient) -> None:
    """A process that died while it staged rows: its batch is there, and was never opened."""
    key, order = {"Idempotency-Key": "died"}, {"rows": rows(1, "died")}
    first = client.post(ROWS, json=order, headers=key).json()["batch_id"]
    with farm.database.begin() as tx:
        tx.execute(update(Batch).where(Batch.id == first).values(state=BatchState.STAGING, staged_at=tx.now))
    answer = client.post(ROWS, json=order, headers=key)
    assert (answer.status_code, answer.json()["code"]) == (409, "in_progress")
    assert int(answer.headers["retry-after"]) > 0
    with farm.database.begin() as tx:
        long_ago = tx.now.replace(year=tx.now.year - 1)
        tx.execute(update(Batch).where(Batch.id == first).values(staged_at=long_ago))
    second = client.post(ROWS, json=order, headers=key).json()["batch_id"]
    assert second != first
    assert client.get(f"/api/v1/batches/{first}").status_code == 404


def test_a_key_is_forgotten_with_its_batch(farm: FarmWithPage, client: TestClient) -> None:
    made = client.post(ROWS, json={"rows": rows(1, "gone")}, headers={"Idempotency-Key": "gone"}).json()["batch_id"]
    with farm.database.begin() as tx:
        tx.execute(update(Batch).where(Batch.id == made).values(state=BatchState.STAGING))
    batches.discard_batch(farm.database, made)
    with farm.database.begin(read_only=True) as tx:
        left = select(func.count()).select_from(SubmissionRow).where(SubmissionRow.batch_id == made)
        assert tx.execute(left).scalar_one() == 0
        assert tx.execute(select(func.count()).select_from(Job).where(Job.batch_id == made)).scalar_one() == 0


# --- limits of a token -----------------------------------------------------------------------------------------------


def test_a_token_has_so_many_jobs_unfinished_and_no_more(farm: FarmWithPage) -> None:
    before = farm.num_batches
    with farm.client(farm.token(max_pending=5)) as client:
        first = client.post(ROWS, json={"rows": rows(3, "few")}).json()["batch_id"]
        answer = client.post(ROWS, json={"rows": rows(3, "more")})
        assert (answer.status_code, answer.json()["code"]) == (429, "pending")
        assert int(answer.headers["retry-after"]) > 0
        assert client.post(ROWS, json={"rows": rows(2, "last")}).status_code == 201
        assert client.post(ROWS, json={"rows": rows(1, "none")}).status_code == 429
        client.post(f"/api/v1/batches/{first}/cancel")
        assert client.post(ROWS, json={"rows": rows(3, "again")}).status_code == 201
    assert farm.num_batches == before + 3


def test_a_list_of_too_many_is_refused_before_the_rest_of_it_is_read(farm: FarmWithPage) -> None:
    lines = [b"a job of a long list %d\n" % n for n in range(40)]
    with farm.client(farm.token(max_pending=5)) as client:
        assert client.post(ROWS, json={"rows": rows(2, "before")}).status_code == 201
        answer = client.post(MANIFESTS, params={"file": "a.tsv"}, content=b"".join([b"Prompt\n", *lines, b"\tbad\n"]))
        assert (answer.status_code, answer.json()["code"]) == (429, "pending")  # and not 422, for the last line
        assert "too many jobs of this token" in answer.json()["detail"]
        good = b"".join([b"Prompt\n", *lines[:3]])
        assert client.post(MANIFESTS, params={"file": "a.tsv"}, content=good).status_code == 201


def test_jobs_whose_image_exists_are_not_among_those_that_are_too_many(tmp_path: Path) -> None:
    with farm_with_page(tmp_path) as farm, farm.client(farm.token(max_pending=2)) as client:
        first = client.post(ROWS, json={"rows": rows(2)}).json()["batch_id"]
        render(farm.database, ImageStore(farm.page.settings.images_url), first)
        assert client.post(ROWS, json={"rows": rows(4)}).json()["num_linked"] == 2
        client.post("/api/v1/batches/2/cancel")
        assert client.post(ROWS, json={"rows": rows(5)}).json()["code"] == "pending"


def test_too_many_submissions_at_once_are_sent_away(farm: FarmWithPage, client: TestClient) -> None:
    for _ in range(4):
        farm.page.submitting.acquire()
    answer = client.post(ROWS, json={"rows": rows(1)})
    farm.page.submitting.release(4)
    assert (answer.status_code, answer.json()["code"]) == (503, "busy")
    assert json.loads(client.post(ROWS, json={"rows": rows(1)}).text)["num_jobs"] == 1
