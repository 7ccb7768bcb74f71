"""One row that becomes many jobs, over HTTP: templates, sweeps, count, within what the farm and a token may."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from farm.image_store import ImageStore
from producer.web import drawing_time
from tests.integration.played_worker import render
from tests.integration.web_client import HERE
from tests.integration.web_farm import FarmWithPage, farm_with_page

ROWS = "/api/v1/batches"
MANIFESTS = "/api/v1/manifests"


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarmWithPage]:
    with farm_with_page(tmp_path_factory.mktemp("web"), web_max_jobs=50, pair="tiny") as farm:
        yield farm


@pytest.fixture(scope="module")
def client(farm: FarmWithPage) -> Iterator[TestClient]:
    with farm.client(peer=HERE) as client:
        yield client


def test_a_row_becomes_all_that_templates_sweeps_and_count_make_of_it(client: TestClient) -> None:
    """The same jobs as `nightshift submit` makes of it."""
    order = {
        "rows": [{"prompt": "a {red|blue} __animals/small__"}], "templates": "all",
        "wildcards": {"animals/small": ["mouse", "{old|young} vole"]}, "sweep": ["guidance_scale=4:5:1"], "count": 2,
    }  # fmt: skip
    answer = client.post(ROWS, json=order)
    assert answer.json()["num_jobs"] == 2 * 3 * 2 * 2
    jobs = client.get(f"{answer.headers['location']}/jobs").json()["items"]
    assert {job["spec"]["prompt"] for job in jobs} == {
        f"a {colour} {animal}" for colour in ("red", "blue") for animal in ("mouse", "old vole", "young vole")
    }
    assert {job["spec"].get("guidance_scale", 5) for job in jobs} == {4, 5}
    assert jobs[0]["meta"]["template.prompt"] == "a {red|blue} __animals/small__"


def test_a_manifest_has_templates_and_sweeps_walked_side_by_side_too(client: TestClient) -> None:
    query = {"file": "a.txt", "templates": "all", "sweep": ["width=512,640", "height=512,768"], "zipped": True}
    answer = client.post(MANIFESTS, params=query, content=b"a {cat|dog}")
    jobs = client.get(f"{answer.headers['location']}/jobs").json()["items"]
    assert [(job["spec"]["prompt"], job["spec"]["width"], job["spec"]["height"]) for job in jobs] == [
        ("a cat", 512, 512), ("a cat", 640, 768), ("a dog", 512, 512), ("a dog", 640, 768),
    ]  # fmt: skip


def test_the_base_seed_decides_seeds_and_drawings_and_may_be_text(client: TestClient) -> None:
    def drawn(base_seed: object) -> list[tuple[str, str]]:
        order = {"rows": [{"prompt": "{a|b|c|d|e|f|g|h}"}], "templates": "sample", "count": 6, "base_seed": base_seed}
        location = client.post(ROWS, json=order).headers["location"]
        jobs = client.get(f"{location}/jobs").json()["items"]
        return [(job["spec"]["prompt"], job["spec"]["seed"]) for job in jobs]

    assert drawn(7) == drawn("7") != drawn(str(2**64 - 1))


def test_a_wildcard_is_what_came_with_the_rows_and_never_a_file_here(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret.txt").write_text("secret\n")
    monkeypatch.chdir(tmp_path)
    for given in ({"wildcards": {"known": ["x"]}}, {}):
        order = {"rows": [{"prompt": "__secret__"}, {"prompt": "__*__"}], "templates": "all", **given}
        answer = client.post(ROWS, json=order)
        assert (answer.status_code, answer.json()["num_errors"]) == (422, 2)
    query = {"file": "a.txt", "templates": "all", "wildcards": str(tmp_path)}
    assert client.post(MANIFESTS, params=query, content=b"__secret__").status_code == 422


@pytest.mark.parametrize(
    "more",
    [
        {"count": 51},
        {"sweep": ["guidance_scale=1:51:1"]},
        {"sweep": ["guidance_scale=1:100:0.01", "seed=0:9999:1", "num_inference_steps=1:900:1"]},
        {"templates": "all", "rows": [{"prompt": "{a|b}" * 60}]},
        {"count": 3, "max_jobs": 2},
        {"count": 51, "max_jobs": 1_000},
    ],
)
def test_what_rows_become_is_bounded_before_it_is_made(client: TestClient, farm: FarmWithPage, more: Any) -> None:
    before = farm.num_batches
    answer = client.post(ROWS, json={"rows": [{"prompt": "x"}], **more})
    assert (answer.status_code, answer.json()["code"]) == (413, "too_many_jobs")
    assert "may be" in answer.json()["detail"]
    assert farm.num_batches == before


def test_more_cells_than_may_be_are_never_looked_through(client: TestClient) -> None:
    """A default that is a template and that a row leaves nothing to say of is looked for in the cells of a sweep."""
    order = {
        "rows": [{"prompt": "x", "refiner": {"mode": "off"}}] * 20, "templates": "all",
        "defaults": {"refiner": {"prompt": "{a|b}"}},
        "sweep": ["seed=0:9999:1", "guidance_scale=1:99:0.01", "num_inference_steps=1:900:1"],
    }  # fmt: skip
    began = time.process_time()
    answer = client.post(ROWS, json=order)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_many_jobs")
    assert time.process_time() - began < 5


@pytest.mark.parametrize("prompt", ["{a|b}", "{only read, never drawn from"])
@pytest.mark.parametrize("mode", ["sample", "all"])
def test_templates_that_take_too_long_end_and_leave_nothing(
    client: TestClient, farm: FarmWithPage, monkeypatch: pytest.MonkeyPatch, prompt: str, mode: str
) -> None:
    before = farm.num_batches
    monkeypatch.setattr(drawing_time, "_SECONDS", -1.0)
    order = {"rows": [{"prompt": prompt}], "templates": mode}
    answer = client.post(ROWS, json=order)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_long")
    assert farm.num_batches == before


def test_what_rows_become_counts_against_what_a_token_may_have(farm: FarmWithPage) -> None:
    before = farm.num_batches
    with farm.client(farm.token(max_pending=5)) as client:
        for more in ({"count": 6}, {"sweep": ["seed=1:6:1"]}, {"templates": "all"}):
            answer = client.post(ROWS, json={"rows": [{"prompt": "pending {1|2|3|4|5|6}"}], **more})
            assert (answer.status_code, answer.json()["code"]) == (429, "pending")
        assert client.post(ROWS, json={"rows": [{"prompt": "pending"}], "count": 5}).status_code == 201
    assert farm.num_batches == before + 1


def test_what_exists_is_not_rendered_again_unless_it_is_asked_for(farm: FarmWithPage, client: TestClient) -> None:
    row = {"prompt": "resumed", "seed": 3}
    batch_id = client.post(ROWS, json={"rows": [row]}).json()["batch_id"]
    render(farm.database, ImageStore(farm.page.settings.images_url), batch_id, 1)
    assert client.post(ROWS, json={"rows": [row, {"prompt": "resumed", "seed": 4}]}).json()["num_linked"] == 1
    assert client.post(ROWS, json={"rows": [row], "again": True}).json()["num_linked"] == 0
