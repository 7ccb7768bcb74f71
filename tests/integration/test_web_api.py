"""The API on a real ledger: batches, jobs, images. Who renders is played by the ledger's own functions."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from starlette.testclient import TestClient

from farm import ledger
from farm.database import Database
from farm.image_store import ImageStore, local_path
from farm.retries import Failure
from producer.questions import job_pages
from producer.questions.batch_throughput import throughput
from producer.questions.job_results import JobResult
from producer.web.api.shapes import JobShape
from producer.web.app import web_app
from producer.web.farm import WebFarm
from schemas.errors import DatabaseUnavailableError
from schemas.settings import Settings
from schemas.tables import Image
from tests.integration.ledger_farm import claimed_pack, new_ledger, new_worker, open_batch, release_pack
from tests.integration.played_worker import render
from tests.integration.web_client import web_client

HOSTILE = "<script>alert(1)</script>"
WRONG = Failure("render", HOSTILE, retryable=False, is_of_the_job=True)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("web")
    return Settings(home=folder / "home", images_url=str(folder / "images"))


@pytest.fixture(scope="module")
def database(settings: Settings) -> Iterator[Database]:
    with closing(new_ledger(settings.database_url)) as database:
        yield database


@pytest.fixture(scope="module")
def client(settings: Settings, database: Database) -> Iterator[TestClient]:
    with closing(WebFarm.open(settings)) as farm, web_client(web_app(farm)) as client:
        yield client


@pytest.fixture(scope="module")
def store(settings: Settings) -> ImageStore:
    return ImageStore(settings.images_url)


def fail_one(database: Database, batch_id: int) -> None:
    pack = claimed_pack(database, batch_id, new_worker(database), 1)
    ledger.fail_jobs(database, pack, [job.id for job in pack.jobs], WRONG, 3)


def pages(client: TestClient, path: str, **query: Any) -> Iterator[list[dict[str, Any]]]:
    page = client.get(path, params=query).json()
    yield page["items"]
    while page["next"]:
        page = client.get(path, params={**query, "cursor": page["next"]}).json()
        yield page["items"]


# --- batches ---------------------------------------------------------------------------------------------------------


def test_batches_come_a_page_at_a_time_the_youngest_first(client: TestClient, database: Database) -> None:
    made = [open_batch(database, 1) for _ in range(5)]
    found = [[batch["id"] for batch in page] for page in pages(client, "/api/v1/batches", limit=2)]
    assert [len(page) for page in found[:-1]] == [2] * (len(found) - 1)
    listed = [number for page in found for number in page]
    assert listed[:5] == made[::-1]
    assert listed == sorted(set(listed), reverse=True)


def test_a_batch_that_comes_between_two_pages_moves_no_page(client: TestClient, database: Database) -> None:
    made = [open_batch(database, 1) for _ in range(4)]
    first = client.get("/api/v1/batches", params={"limit": 2}).json()
    open_batch(database, 1)
    second = client.get("/api/v1/batches", params={"limit": 2, "cursor": first["next"]}).json()
    assert [batch["id"] for batch in first["items"] + second["items"]] == made[::-1]


def test_batches_are_listed_from_one_number_to_another(client: TestClient, database: Database) -> None:
    made = [open_batch(database, 1) for _ in range(4)]
    found = list(pages(client, "/api/v1/batches", limit=1, **{"from": made[1], "to": made[2]}))
    assert [[batch["id"] for batch in page] for page in found] == [[made[2]], [made[1]]]


def test_batches_are_listed_by_state(client: TestClient, database: Database) -> None:
    paused = open_batch(database, 1)
    client.post(f"/api/v1/batches/{paused}/pause")
    found = client.get("/api/v1/batches", params={"state": "paused"}).json()["items"]
    assert [(batch["id"], batch["state"]) for batch in found] == [(paused, "paused")]
    client.post(f"/api/v1/batches/{paused}/resume")
    cursor = client.get("/api/v1/batches", params={"limit": 1}).json()["next"]
    refused = client.get("/api/v1/batches", params={"state": "paused", "cursor": cursor})
    assert (refused.status_code, refused.json()["code"]) == (422, "cursor")


def test_a_batch_is_paused_resumed_put_in_order_and_canceled(client: TestClient, database: Database) -> None:
    path = f"/api/v1/batches/{open_batch(database, 3)}"
    assert client.post(f"{path}/pause").json()["state"] == "paused"
    assert "paused" in client.get(path).json()["waits"]
    assert client.post(f"{path}/resume").json()["state"] == "open"
    ordered = client.post(f"{path}/reprioritise", json={"priority": 9}).json()
    assert (ordered["priority"], ordered["weight"]) == (9, 1.0)
    assert client.post(f"{path}/cancel").json()["batch"]["num_canceled"] == 3
    assert client.get(path).json()["ended"]


def test_what_a_batch_cannot_become_is_a_conflict_and_what_is_not_there_is_not_found(
    client: TestClient, database: Database
) -> None:
    path = f"/api/v1/batches/{open_batch(database, 1)}"
    for verb in ("resume", "retry"):
        client.post(f"{path}/cancel") if verb == "retry" else None
        refused = client.post(f"{path}/{verb}")
        assert (refused.status_code, refused.json()["code"]) == (409, "state")
    for verb in ("pause", "resume", "retry", "cancel"):
        assert client.post(f"/api/v1/batches/999999/{verb}").status_code == 404
    assert client.get("/api/v1/batches/999999").json()["code"] == "not_found"


def test_failed_jobs_get_another_try(client: TestClient, database: Database) -> None:
    batch_id = open_batch(database, 2)
    fail_one(database, batch_id)
    assert client.post(f"/api/v1/batches/{batch_id}/retry").json() == {"num_retried": 1}
    assert client.get(f"/api/v1/batches/{batch_id}").json()["num_failed"] == 0


def test_an_order_without_anything_in_it_is_refused(client: TestClient, database: Database) -> None:
    path = f"/api/v1/batches/{open_batch(database, 1)}/reprioritise"
    assert client.post(path, json={}).status_code == 422
    assert client.post(path, json={"priority": 10}).json()["errors"][0]["where"] == "body.priority"
    assert client.post(path, json={"prority": 1}).status_code == 422


# --- jobs ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed(database: Database, store: ImageStore) -> int:
    """A batch of nine: three done, one failed, one running, two queued, two pending."""
    batch_id = open_batch(database, 9)
    render(database, store, batch_id, 3)
    fail_one(database, batch_id)
    claimed_pack(database, batch_id, new_worker(database), 1)
    release_pack(database, batch_id, 2)
    return batch_id


STATES = {"done": [1, 2, 3], "failed": [4], "running": [5], "queued": [6, 7], "pending": [8, 9], "canceled": []}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("looked_through", [2, 50_000])
def test_jobs_are_found_by_state_however_few_rows_are_looked_through_at_a_time(
    client: TestClient, mixed: int, state: str, looked_through: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_pages, "_LOOKED_THROUGH", looked_through)
    found = list(pages(client, f"/api/v1/batches/{mixed}/jobs", state=state, limit=2))
    assert [job["number"] for page in found for job in page] == STATES[state]
    assert {job["state"] for page in found for job in page} <= {state}


def test_all_jobs_come_in_the_order_of_the_batch_and_several_states_too(client: TestClient, mixed: int) -> None:
    path = f"/api/v1/batches/{mixed}/jobs"
    assert [job["number"] for page in pages(client, path, limit=4) for job in page] == list(range(1, 10))
    two = [job["number"] for page in pages(client, path, limit=2, state=["failed", "pending"]) for job in page]
    assert two == [4, 8, 9]


def test_a_job_says_what_became_of_it(client: TestClient, mixed: int) -> None:
    done = client.get(f"/api/v1/batches/{mixed}/jobs/1").json()
    assert done["spec"] == {"prompt": "cat 1", "seed": "1"}
    assert done["meta"] == {"row": "x"}
    assert done["image"]["url"] == f"/api/v1/batches/{mixed}/jobs/1/image?v=" + done["image"]["sha256"][:12]
    failed = client.get(f"/api/v1/batches/{mixed}/jobs/4").json()
    assert (failed["error_code"], failed["error"], failed["image"]) == ("render", HOSTILE, None)
    assert client.get(f"/api/v1/batches/{mixed}/jobs/99").status_code == 404
    assert client.get("/api/v1/batches/999999/jobs").status_code == 404


def test_results_are_lines_one_for_each_job(client: TestClient, mixed: int) -> None:
    answer = client.get(f"/api/v1/batches/{mixed}/results")
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["number"] for line in lines] == list(range(1, 10))
    assert lines[0] == client.get(f"/api/v1/batches/{mixed}/jobs/1").json()


def test_provenance_is_what_was_recorded(client: TestClient, mixed: int) -> None:
    found = client.get(f"/api/v1/batches/{mixed}/jobs/1/provenance").json()
    assert found["environment"]["pair"] == "tiny"
    assert found["spec"]["width"] == 1024
    assert found["provenance"]["base_steps"] >= 0
    assert client.get(f"/api/v1/batches/{mixed}/jobs/8/provenance").status_code == 404


def test_prompts_and_errors_are_data_and_never_a_page(client: TestClient, mixed: int) -> None:
    answer = client.get(f"/api/v1/batches/{mixed}/jobs/4")
    assert HOSTILE in answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "script-src 'self'" in answer.headers["content-security-policy"]


def test_throughput_is_of_images_and_not_of_packs_that_failed(database: Database, store: ImageStore) -> None:
    batch_id = open_batch(database, 3, guidance_scale=6.0)
    fail_one(database, batch_id)
    assert throughput(database, batch_id) is None
    render(database, store, batch_id, 2)
    found = throughput(database, batch_id)
    assert found is not None
    assert sum(found.nums) == 2


# --- images ----------------------------------------------------------------------------------------------------------


def test_an_image_comes_with_its_kind_and_its_hash(client: TestClient, mixed: int) -> None:
    job = client.get(f"/api/v1/batches/{mixed}/jobs/1").json()
    answer = client.get(job["image"]["url"])
    assert hashlib.sha256(answer.content).hexdigest() == job["image"]["sha256"]
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["etag"] == f'"{job["image"]["sha256"]}"'
    assert answer.headers["content-length"] == str(job["image"]["size_bytes"])
    assert answer.headers["x-content-type-options"] == "nosniff"
    again = client.get(job["image"]["url"], headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_an_image_is_kept_by_browsers_under_a_url_with_its_version_alone(client: TestClient, mixed: int) -> None:
    """Its number may come again, of another picture: from a backup, or of another farm at this address."""
    url = client.get(f"/api/v1/batches/{mixed}/jobs/1").json()["image"]["url"]
    path = url.partition("?")[0]
    kept = {asked: client.get(asked).headers["cache-control"] for asked in (url, path, f"{path}?v=000000000000")}
    assert list(kept.values()) == ["private, max-age=86400, immutable", "private, no-cache", "private, no-cache"]


def test_a_part_of_an_image_is_that_part(client: TestClient, mixed: int) -> None:
    path = f"/api/v1/batches/{mixed}/jobs/1/image"
    whole = client.get(path).content
    part = client.get(path, headers={"Range": "bytes=5-9"})
    assert (part.status_code, part.content) == (206, whole[5:10])
    assert part.headers["content-range"] == f"bytes 5-9/{len(whole)}"
    beyond = client.get(path, headers={"Range": f"bytes={len(whole)}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{len(whole)}")
    assert (beyond.headers["content-type"], beyond.json()["code"]) == ("application/problem+json", "range")


def test_results_that_break_off_are_no_whole_answer(
    client: TestClient, mixed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or who reads them would take a part for all."""
    shape = JobShape.of

    def shaped(job: JobResult) -> JobShape:
        if job.number == 3:
            raise DatabaseUnavailableError("the ledger does not answer")
        return shape(job)

    monkeypatch.setattr(JobShape, "of", shaped)
    with pytest.raises(RuntimeError, match="response already started"):
        client.get(f"/api/v1/batches/{mixed}/results")


def test_a_job_without_an_image_has_none(client: TestClient, mixed: int) -> None:
    assert client.get(f"/api/v1/batches/{mixed}/jobs/8/image").json()["detail"] == (
        f"job {mixed}/8 is pending and has no image"
    )


@pytest.mark.parametrize("path", ["..%2f..%2f..%2fetc%2fpasswd", "%2e%2e%2f1", "%00", "1e3", "-1", "1%2f..%2f2"])
def test_no_path_leads_out_of_the_jobs(client: TestClient, mixed: int, path: str) -> None:
    assert client.get(f"/api/v1/batches/{mixed}/jobs/{path}/image").status_code in (404, 422)


def test_a_file_that_is_gone_or_another_is_said_and_not_given(
    client: TestClient, database: Database, store: ImageStore
) -> None:
    batch_id = open_batch(database, 2, guidance_scale=7.0)
    render(database, store, batch_id, 2)
    for number, spoil in ((1, Path.unlink), (2, lambda path: path.write_bytes(b"another"))):
        path = f"/api/v1/batches/{batch_id}/jobs/{number}"
        sha256 = client.get(path).json()["image"]["sha256"]
        spoil(local_path(f"{store.url}/{sha256[:2]}/{sha256[2:4]}/{sha256}.png"))
        answer = client.get(f"{path}/image")
        assert (answer.status_code, answer.json()["code"]) == (503, "storage")


def test_no_file_is_given_that_no_image_store_has(
    client: TestClient, database: Database, store: ImageStore, tmp_path: Path
) -> None:
    batch_id = open_batch(database, 1, guidance_scale=8.0)
    render(database, store, batch_id, 1)
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    sha256 = client.get(f"/api/v1/batches/{batch_id}/jobs/1").json()["image"]["sha256"]
    with database.begin() as tx:
        tx.execute(update(Image).where(Image.sha256 == sha256).values(uri=secret.as_uri(), size_bytes=6))
    answer = client.get(f"/api/v1/batches/{batch_id}/jobs/1/image")
    assert (answer.status_code, "secret" in answer.text) == (503, False)


# --- problems --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/api/v1/nowhere", "/api/v1/batches/x", "/api/v1/batches?limit=0", "/api/v1/batches/4294967296"]
)
def test_every_error_is_a_problem(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "status", "detail", "code"} <= answer.json().keys()
    assert answer.json()["status"] == answer.status_code


def test_a_method_that_is_none_is_told_which_there_are(client: TestClient) -> None:
    answer = client.delete("/api/v1/batches")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST")


def test_a_body_that_is_too_large_is_not_read(client: TestClient, database: Database) -> None:
    path = f"/api/v1/batches/{open_batch(database, 1)}/reprioritise"
    answer = client.post(path, content=b" " * 70_000, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_the_description_has_an_example_of_each_body_and_names_its_errors(client: TestClient) -> None:
    described = client.get("/api/v1/openapi.json").json()
    schemas = described["components"]["schemas"]
    assert schemas["RowsOrder"]["examples"][0]["rows"]
    assert schemas["Order"]["examples"]
    for methods in described["paths"].values():
        for operation in methods.values():
            refused = operation["responses"]["422"]["content"]
            assert list(refused) == ["application/problem+json"]
